"""One CA for a run; a certificate for the nodes (PKCS#12, as Cassandra reads it) and one for the gateway (PEM)."""
from . import cache, net


def make(place):
    """`place` gets ca.pem, node.p12 (password cassandra), gateway.pem, gateway.key."""
    def openssl(*arguments):
        cache.run("openssl", *arguments, cwd=place)

    place.mkdir(parents=True, exist_ok=True)
    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.pem", "-days", "30",
            "-subj", "/CN=cqlgate rig", "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=keyCertSign,cRLSign")
    names = {"node": ",".join(f"IP:{net.NODES}.{n}" for n in (11, 12, 13, 14, 23, 33)), "gateway": f"IP:{net.GATEWAY}"}
    for who, alternative in names.items():
        openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{who}.key", "-out", f"{who}.csr", "-subj", f"/CN={who}")
        (place / f"{who}.ext").write_text(f"subjectAltName={alternative}\nextendedKeyUsage=serverAuth\n")
        openssl("x509", "-req", "-in", f"{who}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "30",
                "-extfile", f"{who}.ext", "-out", f"{who}.pem")
    openssl("pkcs12", "-export", "-in", "node.pem", "-inkey", "node.key", "-certfile", "ca.pem", "-name", "node",
            "-passout", "pass:cassandra", "-out", "node.p12")
    return place


def revocations(place):
    """`place`, as `make` left it, gets ca.crl: a list of the CA's that revokes nothing."""
    (place / "index.txt").write_text("")
    (place / "ca.cnf").write_text("[ca]\ndefault_ca=rig\n[rig]\ndatabase=index.txt\ndefault_md=sha256\ndefault_crl_days=30\n"
                                 "crlnumber=crlnumber\ncrl_extensions=list\n[list]\nauthorityKeyIdentifier=keyid\n")
    (place / "crlnumber").write_text("01\n")
    cache.run("openssl", "ca", "-gencrl", "-config", "ca.cnf", "-keyfile", "ca.key", "-cert", "ca.pem", "-out", "ca.crl", cwd=place)


def renew(place):
    """Another certificate of the gateway's, with another key, in the same files: the key first, as it may happen."""
    def openssl(*arguments):
        cache.run("openssl", *arguments, cwd=place)

    openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", "next.key", "-out", "next.csr", "-subj", "/CN=gateway")
    openssl("x509", "-req", "-in", "next.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "30",
            "-extfile", "gateway.ext", "-out", "next.pem")
    for kind in ("key", "pem"):
        (place / f"next.{kind}").rename(place / f"gateway.{kind}")


def control_plane(place, address):
    """`place` gets the apiserver's ca.crt, api.crt and api.key, and the pair sa.key, sa.pub that signs ServiceAccounts' tokens."""
    def openssl(*arguments):
        cache.run("openssl", *arguments, cwd=place)

    place.mkdir(parents=True, exist_ok=True)
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30")
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=cqlgate rig apiserver CA",
            "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign")
    openssl("req", "-x509", *key, "-keyout", "api.key", "-out", "api.crt", "-subj", "/CN=kube-apiserver", "-CA", "ca.crt", "-CAkey", "ca.key",
            "-addext", f"subjectAltName=IP:127.0.0.1,IP:{address},DNS:localhost,DNS:kubernetes.default.svc",
            "-addext", "basicConstraints=critical,CA:FALSE", "-addext", "extendedKeyUsage=serverAuth")
    openssl("ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", "sa.key")
    openssl("ec", "-in", "sa.key", "-pubout", "-out", "sa.pub")
    return place
