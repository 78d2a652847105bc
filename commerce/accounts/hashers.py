from django.contrib.auth.hashers import PBKDF2PasswordHasher

from commerce.accounts.backends import normalized


class NormalizingHasher(PBKDF2PasswordHasher):
    """Hashes a new password in its normal form, whichever form of admin, command or program sets it.

    A password is checked as it is spelled, because older releases hashed other spellings; the login tries both.
    """

    def encode(self, password: str, salt: str, iterations: int | None = None) -> str:
        return super().encode(normalized(password), salt, iterations)

    def verify(self, password: str, encoded: str) -> bool:
        return PBKDF2PasswordHasher().verify(password, encoded)
