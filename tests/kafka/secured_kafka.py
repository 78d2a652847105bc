"""Apache Kafka with a second listener, which requires TLS and a password. A test authority signs its certificate."""

from pathlib import Path

import trustme
from confluent_kafka.admin import ScramCredentialInfo, ScramMechanism, UserScramCredentialUpsertion
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    load_pem_private_key,
    pkcs12,
)
from cryptography.x509 import load_pem_x509_certificate

from testkit.apache_kafka import ApacheKafka
from testkit.processes import free_port

USERNAME, PASSWORD = "order-service", "correct horse, battery"
KEYSTORE_PASSWORD = "keystore"


class SecuredKafka(ApacheKafka):
    def __init__(self, home: Path) -> None:
        super().__init__(home)
        home.mkdir(parents=True)
        self._secured_port = free_port()
        self._controller_port = free_port()
        self.authority = home / "authority.pem"
        self._keystore = home / "keystore.p12"
        self._properties = home / "secured.properties"

    @property
    def env(self) -> dict[str, str]:
        """Return the environment variables with which a process connects to this Kafka."""
        return {
            "KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{self._secured_port}",
            "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
            "KAFKA_SASL_USERNAME": USERNAME,
            "KAFKA_SASL_PASSWORD": PASSWORD,
            "KAFKA_SSL_CAFILE": str(self.authority),
        }

    def start(self) -> None:
        self._make_certificates()
        plain, secured = f"PLAINTEXT://127.0.0.1:{self.port}", f"SASL_SSL://127.0.0.1:{self._secured_port}"
        self._properties.write_text(f"""
listeners={plain},{secured},CONTROLLER://127.0.0.1:{self._controller_port}
advertised.listeners={plain},{secured}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL
sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=\
org.apache.kafka.common.security.scram.ScramLoginModule required;
ssl.keystore.type=PKCS12
ssl.keystore.location={self._keystore}
ssl.keystore.password={KEYSTORE_PASSWORD}
ssl.key.password={KEYSTORE_PASSWORD}
""")
        super().start()
        scram = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, iterations=4096)
        user = UserScramCredentialUpsertion(USERNAME, scram, PASSWORD.encode())
        admin = self._admin()
        admin.alter_user_scram_credentials([user])[USERNAME].result()

    def _settings(self) -> dict[str, str]:
        return super()._settings() | {
            "KAFKA_CONTROLLER_PORT": str(self._controller_port),
            "KAFKA_PROPERTIES": str(self._properties),
        }

    def _make_certificates(self) -> None:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(self.authority)
        issued = authority.issue_cert("127.0.0.1")
        key = load_pem_private_key(issued.private_key_pem.bytes(), None)
        certificate = load_pem_x509_certificate(issued.cert_chain_pems[0].bytes())
        encryption = BestAvailableEncryption(KEYSTORE_PASSWORD.encode())
        self._keystore.write_bytes(pkcs12.serialize_key_and_certificates(b"broker", key, certificate, None, encryption))
