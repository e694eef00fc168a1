"""CAs and what they sign, in files: PEM for the gateway and its clients, PKCS#12 as Cassandra reads it. Recipes that people have are in homemade.py."""
from . import cache, net

PASSWORD = "cassandra"
NODES = [f"{net.NODES}.{n}" for n in (11, 12, 13, 14, 23, 33)]


def openssl(place, *arguments):
    return cache.run("openssl", *arguments, cwd=place)


def keytool(place, *arguments):
    return cache.run("keytool", *arguments, "-storepass", PASSWORD, "-noprompt", cwd=place)


def authority(place, name="ca", subject="cqlgate rig", key=("-newkey", "rsa:2048")):
    """`place` gets NAME.pem, a CA's, and NAME.key."""
    openssl(place, "req", "-x509", *key, "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.pem", "-days", "30",
            "-subj", f"/CN={subject}", "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=keyCertSign,cRLSign")


def sign(place, who, extensions, by="ca", file=None, key=("-newkey", "rsa:2048")):
    """A new key and its certificate, signed by a CA of `place`: FILE.pem and FILE.key, named WHO where it is not said."""
    file = file or who
    openssl(place, "req", *key, "-nodes", "-keyout", f"{file}.key", "-out", f"{file}.csr", "-subj", f"/CN={who}")
    (place / f"{file}.ext").write_text(extensions + "\n")
    openssl(place, "x509", "-req", "-in", f"{file}.csr", "-CA", f"{by}.pem", "-CAkey", f"{by}.key", "-CAcreateserial", "-days", "30",
            "-extfile", f"{file}.ext", "-out", f"{file}.pem")
    return place / f"{file}.pem", place / f"{file}.key"


def server(*addresses):
    """The extensions of who is dialled."""
    return f"subjectAltName={','.join(f'IP:{address}' for address in addresses)}\nextendedKeyUsage=serverAuth"


def client(uri=None):
    """The extensions of who dials."""
    return (f"subjectAltName=URI:{uri}\n" if uri else "") + "extendedKeyUsage=clientAuth"


def keystore(place, who, chain=None, file=None):
    """WHO.pem and its key as FILE.p12, with the certificates of CHAIN.pem after it."""
    openssl(place, "pkcs12", "-export", "-in", f"{who}.pem", "-inkey", f"{who}.key", *(("-certfile", f"{chain}.pem") if chain else ()),
            "-name", "node", "-passout", f"pass:{PASSWORD}", "-out", f"{file or who}.p12")


def make(place):
    """One CA for a run; `place` gets ca.pem, node.p12 (password cassandra), gateway.pem, gateway.key."""
    place.mkdir(parents=True, exist_ok=True)
    authority(place)
    sign(place, "node", server(*NODES))
    # The rig itself comes from inside.
    sign(place, "gateway", server(net.GATEWAY, net.gateway_inside()))
    keystore(place, "node", "ca")
    return place


def revocations(place):
    """`place`, as `make` left it, gets ca.crl: a list of the CA's that revokes nothing."""
    (place / "index.txt").write_text("")
    (place / "ca.cnf").write_text("[ca]\ndefault_ca=rig\n[rig]\ndatabase=index.txt\ndefault_md=sha256\ndefault_crl_days=30\n"
                                 "crlnumber=crlnumber\ncrl_extensions=list\n[list]\nauthorityKeyIdentifier=keyid\n")
    (place / "crlnumber").write_text("01\n")
    openssl(place, "ca", "-gencrl", "-config", "ca.cnf", "-keyfile", "ca.key", "-cert", "ca.pem", "-out", "ca.crl")


def mutual(place):
    """And certificates of clients: app and other, by a CA of their own, clients.pem; of the gateway towards nodes, in its own name (inside), in
    the app's (role), and of the rig, each with a SPIFFE URI; trust.p12, by which nodes verify them."""
    make(place)
    authority(place, "clients", "cqlgate rig clients")
    for who in ("app", "other"):
        sign(place, who, client(), by="clients")
    for who in ("inside", "role", "rig"):
        sign(place, who, client(spiffe(who)))
    (place / "trust.p12").unlink(missing_ok=True)
    keytool(place, "-importcert", "-file", "ca.pem", "-alias", "ca", "-keystore", "trust.p12", "-storetype", "PKCS12")
    return place


def spiffe(who):
    return f"spiffe://rig.example/{who}"


def pair(place, who):
    return place / f"{who}.pem", place / f"{who}.key"


def renew(place):
    """Another certificate of the gateway's, with another key, in the same files: the key first, as it may happen."""
    sign(place, "gateway", server(net.GATEWAY, net.gateway_inside()), file="next")
    for kind in ("key", "pem"):
        (place / f"next.{kind}").rename(place / f"gateway.{kind}")


def control_plane(place, address):
    """`place` gets the apiserver's ca.crt, api.crt and api.key, and the pair sa.key, sa.pub that signs ServiceAccounts' tokens."""
    place.mkdir(parents=True, exist_ok=True)
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30")
    openssl(place, "req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=cqlgate rig apiserver CA",
            "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign")
    openssl(place, "req", "-x509", *key, "-keyout", "api.key", "-out", "api.crt", "-subj", "/CN=kube-apiserver", "-CA", "ca.crt", "-CAkey", "ca.key",
            "-addext", f"subjectAltName=IP:127.0.0.1,IP:{address},DNS:localhost,DNS:kubernetes.default.svc",
            "-addext", "basicConstraints=critical,CA:FALSE", "-addext", "extendedKeyUsage=serverAuth")
    openssl(place, "ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", "sa.key")
    openssl(place, "ec", "-in", "sa.key", "-pubout", "-out", "sa.pub")
    return place
