from django.contrib.auth.hashers import PBKDF2PasswordHasher

from commerce.accounts.backends import normalized


class NormalizingHasher(PBKDF2PasswordHasher):
    """A hasher that normalizes new passwords, from every form, command and program.

    `verify` does not normalize: older releases hashed the password as typed. The login calls `verify` with the normal
    form, and with the password as typed.
    """

    def encode(self, password: str, salt: str, iterations: int | None = None) -> str:
        return super().encode(normalized(password), salt, iterations)

    def verify(self, password: str, encoded: str) -> bool:
        return PBKDF2PasswordHasher().verify(password, encoded)
