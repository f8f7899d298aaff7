"""Certificates and keys: how they are read, paired and selected."""

from __future__ import annotations

import os
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from twisted.trial.unittest import SynchronousTestCase

from tests.certificate import DAY, Authority, Issued
from txgreenwsgi._tls.certificates import Certificates, load_certificates
from txgreenwsgi._tls.errors import TLSError
from txgreenwsgi._tls.options import TLSOptions

CA = Authority()
INTERMEDIATE = Authority("Test Intermediate", CA)


class FilesTestCase(SynchronousTestCase):
    """A case with a directory of its own."""

    def setUp(self) -> None:
        """Make the directory."""
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()

    def write(self, name: str, *contents: bytes) -> str:
        """Write a file; return its path."""
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"".join(contents))
        return str(path)

    def load(self, **options: Any) -> Certificates:
        """Return the certificates of options."""
        return load_certificates(TLSOptions(**options))

    def load_directory(self) -> Certificates:
        """Return the certificates of the directory."""
        return self.load(dir=str(self.directory))

    def refusal(self, **options: str) -> str:
        """Return the message for files that cannot be used."""
        return str(self.assertRaises(TLSError, self.load, **options))


class PairTests(FilesTestCase):
    """`--tls-cert` and `--tls-key`."""

    def test_pair(self) -> None:
        """The certificate, its chain and its names are read."""
        issued = INTERMEDIATE.issue("Shop.Test", "*.shop.test")
        cert, key = issued.write(self.directory)
        found = self.load(cert=cert, key=key)
        self.assertEqual(found.default.leaf, issued.certificate)
        self.assertEqual(found.default.chain, (INTERMEDIATE.certificate,))
        self.assertEqual(found.default.names, ("shop.test", "*.shop.test"))
        self.assertEqual(found.warnings, ())

    def test_one_file(self) -> None:
        """Without `--tls-key`, the key is in the file of the certificate."""
        issued = INTERMEDIATE.issue("shop.test")
        path = self.write("all.pem", issued.key_pem, issued.chain_pem)
        self.assertEqual(self.load(cert=path).default.leaf, issued.certificate)

    def test_any_order(self) -> None:
        """The certificate of the key is found behind those of its issuers."""
        issued = INTERMEDIATE.issue("shop.test")
        path = self.write(
            "all.pem", CA.pem, INTERMEDIATE.pem, issued.cert_pem, issued.key_pem
        )
        found = self.load(cert=path).default
        self.assertEqual(found.leaf, issued.certificate)
        self.assertEqual(found.chain, (INTERMEDIATE.certificate, CA.certificate))

    def test_issuers_of_the_same_name(self) -> None:
        """The chain consists of the certificates that have signed it."""
        other = Authority("Test Intermediate", CA)
        issued = INTERMEDIATE.issue("shop.test")
        path = self.write("all.pem", issued.cert_pem, other.pem, INTERMEDIATE.pem)
        found = self.load(cert=path, key=self.write("key.pem", issued.key_pem))
        self.assertEqual(found.default.chain, (INTERMEDIATE.certificate,))

    def test_common_name(self) -> None:
        """A certificate without alternative names is used for its common name."""
        issued = CA.issue(subject=[(x509.NameOID.COMMON_NAME, "old.test")])
        cert, key = issued.write(self.directory)
        self.assertEqual(self.load(cert=cert, key=key).default.names, ("old.test",))

    def test_missing_chain(self) -> None:
        """A certificate without that of its issuer is served with a warning."""
        issued = INTERMEDIATE.issue("shop.test")
        path = self.write("cert.pem", issued.cert_pem, issued.key_pem)
        [warning] = self.load(cert=path).warnings
        self.assertIn("contains no certificate of its issuer", warning)
        self.assertIn("CN=Test Intermediate", warning)
        self.assertIn("fullchain.pem", warning)

    def test_expired(self) -> None:
        """An expired certificate is served, with a warning that gives the date."""
        issued = INTERMEDIATE.issue("shop.test", lifetime=-10 * DAY)
        cert, key = issued.write(self.directory)
        [warning] = self.load(cert=cert, key=key).warnings
        day = issued.certificate.not_valid_after_utc
        self.assertIn(f"shop.test in {cert} has expired on {day:%Y-%m-%d}", warning)

    def test_about_to_expire(self) -> None:
        """The warning begins when a sixth of the lifetime is left."""
        for age, left, expected in ((80, 10, True), (70, 20, False), (5, 1, True)):
            issued = INTERMEDIATE.issue("a.test", age=age * DAY, lifetime=left * DAY)
            cert, key = issued.write(self.directory)
            warnings = self.load(cert=cert, key=key).warnings
            self.assertEqual(bool(warnings), expected, (age, left, warnings))

    def test_not_valid_yet(self) -> None:
        """A certificate of the future is served, with a warning about the clock."""
        issued = INTERMEDIATE.issue("shop.test", age=-DAY)
        cert, key = issued.write(self.directory)
        [warning] = self.load(cert=cert, key=key).warnings
        self.assertIn("is not valid before", warning)
        self.assertIn("check the clock", warning)

    def test_wrong_key(self) -> None:
        """The key of another certificate is refused, and the error names both."""
        cert, _ = CA.issue("shop.test").write(self.directory)
        _, key = CA.issue("other.test").write(self.directory, "other")
        self.assertEqual(
            self.refusal(cert=cert, key=key),
            f"--tls-key {key!r} is not the private key of the certificate in {cert!r} "
            "(CN=test): give the key that the certificate was requested with",
        )

    def test_refusals(self) -> None:
        """Each wrong file has an error with the option, the problem and the remedy."""
        issued = CA.issue("shop.test")
        cert, key = issued.write(self.directory)
        encrypted = self.write("encrypted.pem", issued.encrypted_key_pem)
        half = issued.cert_pem + issued.cert_pem[:120]
        old = b"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n"
        old += b"DEK-Info: AES-128-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n"
        broken = issued.cert_pem.replace(b"M", b"A", 40)
        for options, message in (
            ({"cert": str(self.directory / "no")}, "cannot be read (No such file"),
            ({"cert": str(self.directory)}, "is a directory: give a file, or use"),
            ({"cert": "/dev/null"}, "is not a regular file: give a file"),
            ({"cert": cert}, "contains no private key: give its file too (--tls-key"),
            ({"cert": key}, "contains a private key but no certificate: give"),
            ({"cert": cert, "key": cert}, "contains no private key in PEM format"),
            (
                {"cert": cert, "key": encrypted},
                "is encrypted with a passphrase: decrypt it with: openssl pkey -in",
            ),
            (
                {"cert": cert, "key": self.write("old.pem", old)},
                "is encrypted with a passphrase",
            ),
            (
                {"cert": self.write("broken.pem", broken), "key": key},
                "contains an invalid certificate",
            ),
            (
                {"cert": cert, "key": self.write("k.pem", issued.key_pem[:120])},
                "is truncated: an END line is missing",
            ),
            (
                {
                    "cert": self.write("half.pem", half),
                    "key": key,
                },
                "is truncated: an END line is missing",
            ),
            (
                {"cert": self.write("empty.pem"), "key": key},
                "contains no certificate in PEM format",
            ),
            (
                {"cert": self.write("der.pem", os.urandom(500)), "key": key},
                "contains no certificate in PEM format",
            ),
            (
                {"cert": self.write("big.pem", bytes(2**21)), "key": key},
                "has 2097152 bytes, more than any certificate or key",
            ),
        ):
            text = self.refusal(**options)
            self.assertIn(message, text)
            self.assertTrue(text.startswith(("--tls-cert '", "--tls-key '")), text)

    def test_fifo(self) -> None:
        """A FIFO is refused at once, although no process writes to it."""
        path = self.directory / "fifo.pem"
        os.mkfifo(path)
        self.assertIn("is not a regular file", self.refusal(cert=str(path)))

    def test_other_keys(self) -> None:
        """Keys of SSH and unknown keys are refused; parameters are ignored."""
        issued = CA.issue("shop.test")
        cert, _ = issued.write(self.directory)
        ssh = b"-----BEGIN OPENSSH PRIVATE KEY-----\nAA==\n"
        ssh += b"-----END OPENSSH PRIVATE KEY-----\n"
        key = self.write("ssh.pem", ssh)
        self.assertIn("contains a key of SSH", self.refusal(cert=cert, key=key))
        unknown = b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"
        key = self.write("unknown.pem", unknown)
        text = self.refusal(cert=cert, key=key)
        self.assertIn("contains an invalid private key", text)
        parameters = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n"
        parameters += b"-----END EC PARAMETERS-----\n"
        key = self.write("ec.pem", parameters, issued.key_pem)
        self.load(cert=cert, key=key)

    def test_client_authorities(self) -> None:
        """All certificates of `--tls-client-ca` are read; revocations are refused."""
        cert, key = CA.issue("shop.test").write(self.directory)
        path = self.write("ca.pem", CA.pem, INTERMEDIATE.pem)
        found = self.load(cert=cert, key=key, client_ca=path)
        self.assertEqual(found.authorities, (CA.certificate, INTERMEDIATE.certificate))
        text = self.refusal(cert=cert, key=key, client_ca=key)
        self.assertIn(f"--tls-client-ca {key!r} contains no certificate", text)
        revoked = b"-----BEGIN X509 CRL-----\nAA==\n-----END X509 CRL-----\n"
        path = self.write("crl.pem", CA.pem, revoked)
        text = self.refusal(cert=cert, key=key, client_ca=path)
        self.assertIn("contains a revocation list, which is not supported", text)


class DirectoryTests(FilesTestCase):
    """`--tls-dir`."""

    def test_names(self) -> None:
        """Each name and each wildcard has its certificate, whatever its file."""
        a = INTERMEDIATE.issue("a.test", "www.a.test")
        b = INTERMEDIATE.issue("*.b.test")
        a.write(self.directory, "b.test")
        self.write("sub/deeper/all.pem", b.chain_pem, b.key_pem)
        found = self.load_directory()
        for name, issued in {
            "a.test": a,
            "WWW.a.test.": a,
            "x.b.test": b,
            "b.test": None,
            "x.y.b.test": None,
            "c.test": None,
            "": None,
            ".": None,
        }.items():
            certificate = found.for_name(name)
            leaf = certificate.leaf if certificate else None
            self.assertEqual(leaf, issued.certificate if issued else None, name)
        self.assertEqual(found.warnings, ())

    def test_default(self) -> None:
        """Other names get the first file in alphabetical order, or `--tls-cert`."""
        first, second = CA.issue("z.test"), CA.issue("a.test")
        first.write(self.directory, "1")
        second.write(self.directory, "2")
        self.assertEqual(self.load_directory().default.leaf, first.certificate)
        found = self.load(
            dir=str(self.directory),
            cert=str(self.directory / "2.crt"),
            key=str(self.directory / "2.key"),
        )
        self.assertEqual(found.default.leaf, second.certificate)
        self.assertEqual(len(found.all), 2)

    def test_layouts(self) -> None:
        """The layouts of certbot, lego, Caddy and Kubernetes are understood."""
        made = {
            name: INTERMEDIATE.issue(f"{name}.test")
            for name in ("certbot", "lego", "caddy", "k8s")
        }
        certbot = "certbot/live/certbot.test"
        archive = "certbot/.archive/certbot.test"
        for name, content in {
            "privkey": made["certbot"].key_pem,
            "cert": made["certbot"].cert_pem,
            "chain": INTERMEDIATE.pem,
            "fullchain": made["certbot"].chain_pem,
        }.items():
            target = self.write(f"{archive}/{name}1.pem", content)
            self.write(f"{certbot}/README", b"")
            (self.directory / certbot / f"{name}.pem").symlink_to(target)
        self.write("lego/lego.test.crt", made["lego"].chain_pem)
        self.write("lego/lego.test.issuer.crt", INTERMEDIATE.pem)
        self.write("lego/lego.test.key", made["lego"].key_pem)
        self.write("lego/lego.test.json", b"{}")
        self.write("caddy/acme-v02/caddy.test/caddy.test.crt", made["caddy"].chain_pem)
        self.write("caddy/acme-v02/caddy.test/caddy.test.key", made["caddy"].key_pem)
        self.write("k8s/..2026/tls.crt", made["k8s"].chain_pem)
        self.write("k8s/..2026/tls.key", made["k8s"].key_pem)
        (self.directory / "k8s/..data").symlink_to("..2026")
        for name in ("tls.crt", "tls.key"):
            (self.directory / "k8s" / name).symlink_to(f"..data/{name}")
        found = self.load_directory()
        self.assertEqual(found.warnings, ())
        self.assertEqual(set(found.by_name), {f"{name}.test" for name in made})
        for certificate in found.all:
            self.assertEqual(certificate.chain, (INTERMEDIATE.certificate,))

    def test_two_for_one_name(self) -> None:
        """A name gets the newest certificate that is valid."""
        newest = CA.issue("a.test", age=timedelta(hours=1))
        CA.issue("a.test", age=3 * DAY, lifetime=90 * DAY).write(self.directory, "1")
        newest.write(self.directory, "2")
        CA.issue("a.test", age=-DAY).write(self.directory, "3")
        CA.issue("a.test", lifetime=-DAY).write(self.directory, "4")
        self.assertEqual(
            self.load_directory().by_name["a.test"].leaf, newest.certificate
        )

    def test_broken_files(self) -> None:
        """A file that cannot be used is a warning, while others can."""
        CA.issue("a.test").write(self.directory, "a")
        CA.issue("b.test").write(self.directory, "b")
        self.write("b.key", CA.issue("c.test").key_pem)
        self.write("d.key", CA.issue("d.test").encrypted_key_pem)
        (self.directory / "gone.pem").symlink_to("nowhere")
        found = self.load_directory()
        self.assertEqual(list(found.by_name), ["a.test"])
        text = "\n".join(found.warnings)
        self.assertIn("b.key contains a private key without a certificate", text)
        self.assertIn("d.key contains a private key that is encrypted", text)
        self.assertIn("gone.pem cannot be read (No such file or directory)", text)

    def test_cycle(self) -> None:
        """Symbolic links that form a cycle are followed once."""
        CA.issue("a.test").write(self.directory, "a")
        (self.directory / "self").symlink_to(self.directory)
        self.assertEqual(len(self.load_directory().all), 1)

    def test_refusals(self) -> None:
        """A directory without a usable certificate is refused."""
        directory = str(self.directory)
        text = self.refusal(dir=directory)
        self.assertIn(f"--tls-dir {directory!r} contains no certificate with", text)
        text = self.refusal(dir=f"{directory}/no")
        self.assertIn("cannot be read (No such file or directory)", text)
        text = self.refusal(dir=self.write("file.txt"))
        self.assertIn("cannot be read (Not a directory)", text)
        issued = CA.issue("a.test")
        self.write("a.crt", issued.cert_pem)
        self.write("a.key", issued.encrypted_key_pem)
        self.assertIn("no certificate that can be used", self.refusal(dir=directory))
        self.assertIn("encrypted with a passphrase", self.refusal(dir=directory))

    def test_many_names(self) -> None:
        """The description of a certificate is short."""
        CA.issue(*(f"n{number}.test" for number in range(99))).write(self.directory)
        described = self.load_directory().default.described
        self.assertTrue(described.endswith("n4.test and 94 more"), described)


class KeepingTests(FilesTestCase):
    """`Certificates.keeping`: old certificates in place of worse new ones."""

    def renewed(self, old: Certificates) -> Certificates:
        """Return the certificates of the directory as they would be used now."""
        return self.load_directory().keeping(old, datetime.now(timezone.utc))

    def old(self, *issued: Issued) -> Certificates:
        """Return the certificates of files that are replaced next."""
        for number, each in enumerate(issued):
            each.write(self.directory, str(number))
        return self.load_directory()

    def test_broken(self) -> None:
        """A file of no use any more does not take its name out of service."""
        a, b = CA.issue("a.test"), CA.issue("b.test")
        old = self.old(a, b)
        self.write("1.key", CA.issue("b.test").key_pem)
        new = self.renewed(old)
        self.assertEqual(new.by_name["b.test"].leaf, b.certificate)
        self.assertIn("keeping the old certificate of b.test", new.warnings[-1])

    def test_removed(self) -> None:
        """A certificate whose files are removed is out of service."""
        old = self.old(CA.issue("a.test"), CA.issue("b.test"))
        for name in ("1.crt", "1.key"):
            (self.directory / name).unlink()
        self.assertEqual(list(self.renewed(old).by_name), ["a.test"])

    def test_removed_name(self) -> None:
        """A name that a renewed certificate no longer has is out of service."""
        old = self.old(CA.issue("a.test", "www.a.test"))
        CA.issue("a.test").write(self.directory, "0")
        self.assertEqual(list(self.renewed(old).by_name), ["a.test"])

    def test_expired(self) -> None:
        """A new certificate that is not valid does not replace a valid one."""
        first = CA.issue("a.test")
        old = self.old(first)
        CA.issue("a.test", lifetime=-DAY).write(self.directory, "0")
        new = self.renewed(old)
        self.assertEqual(new.by_name["a.test"].leaf, first.certificate)
        self.assertEqual(new.default.leaf, first.certificate)

    def test_both_expired(self) -> None:
        """Of two invalid certificates, the new one is used."""
        old = self.old(CA.issue("a.test", lifetime=-2 * DAY))
        second = CA.issue("a.test", lifetime=-DAY)
        second.write(self.directory, "0")
        self.assertEqual(self.renewed(old).default.leaf, second.certificate)

    def test_without(self) -> None:
        """Certificates that OpenSSL refuses are left out, unless none is left."""
        old = self.old(CA.issue("a.test"), CA.issue("b.test"))
        a, b = old.by_name["a.test"], old.by_name["b.test"]
        error = TLSError("it", "is wrong", "correct it")
        new = old.without({a: error})
        self.assertEqual((new.default, list(new.by_name)), (b, ["b.test"]))
        self.assertEqual(new.warnings[-1], "it is wrong: correct it")
        self.assertRaises(TLSError, old.without, {a: error, b: error})
        named = self.load(
            cert=str(self.directory / "0.crt"), key=str(self.directory / "0.key")
        )
        self.assertRaises(TLSError, named.without, {named.default: error})


class KeyTests(FilesTestCase):
    """Kinds of keys."""

    def test_rsa(self) -> None:
        """RSA keys work like EC keys."""
        key = rsa.generate_private_key(65537, 2048)
        issued = CA.issue("a.test", key=key)
        cert, path = issued.write(self.directory)
        self.assertEqual(
            self.load(cert=cert, key=path).default.leaf, issued.certificate
        )
