from stage import background, eventually, fetch, go, parsed, same, sh

# Answers each request with what it asked for and which host it named.
SERVER = """
import http.server, json, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        length = int(self.headers.get("content-length") or 0)
        said = {"path": self.path, "method": self.command, "length": len(self.rfile.read(length)),
                "host": self.headers.get("host"), "forwarded": self.headers.get("x-forwarded-host")}
        body = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    do_POST = do_GET
    def log_message(self, *args): pass
http.server.ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Handler).serve_forever()
"""

# The same by TLS, with a certificate that nobody signed but itself.
CERTIFICATE = (
    "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=own"
    " -keyout key.pem -out cert.pem"
)
TLS_SERVER = SERVER.replace(
    "http.server.ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Handler).serve_forever()",
    """import ssl
server = http.server.ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("cert.pem", "key.pem")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()""",
)


async def serve(stage, sandbox, address="0.0.0.0", port=8000):
    await go(sandbox.files.write("server.py", SERVER))
    await background(stage, sandbox, f"python3 server.py {address} {port}", timeout=0)


async def ask(url, *rest):
    async def answered():
        status, body = await fetch(url, *rest)
        same(status, 200, body)
        return parsed(body)

    return await eventually(answered)


def host_of(url):
    return url.split("://")[1]


async def port_http(stage):
    sandbox = await stage.create()
    # One for everybody, one for the guest's own loopback.
    for address, port in (("0.0.0.0", 8000), ("127.0.0.1", 8001)):
        await serve(stage, sandbox, address, port)
        said = await ask(f"{stage.preview(sandbox, port)}/a%20path?x=1")
        same((said["path"], said["host"]), ("/a%20path?x=1", host_of(stage.preview(sandbox, port))))
        posted = await ask(stage.preview(sandbox, port), "POST", {}, b"x" * 100_000)
        same((posted["method"], posted["length"]), ("POST", 100_000))
    status, body = await fetch(stage.preview(sandbox, 8002))
    closed = parsed(body)
    same((status, closed["sandboxId"], closed["port"], closed["code"]), (502, sandbox.sandbox_id, 8002, 502))
    assert "port is not open" in closed["message"]
    await go(sandbox.kill())
    status, body = await fetch(stage.preview(sandbox, 8000))
    same(status, 502)
    assert "was not found" in parsed(body)["message"]


async def port_private(stage):
    sandbox = await stage.create(network={"allow_public_traffic": False})
    token = sandbox.traffic_access_token
    assert token
    await serve(stage, sandbox)
    url = stage.preview(sandbox, 8000)
    for headers in ({}, {"e2b-traffic-access-token": "wrong"}):
        status, body = await fetch(url, "GET", headers)
        same((status, parsed(body)["code"]), (403, 403))
    same((await ask(url, "GET", {"e2b-traffic-access-token": token}))["method"], "GET")


async def port_https(stage):
    sandbox = await stage.create(network={"https_ports": [8443]})
    await sh(sandbox, CERTIFICATE)
    await go(sandbox.files.write("server.py", TLS_SERVER))
    await background(stage, sandbox, "python3 server.py 0.0.0.0 8443", timeout=0)
    posted = await ask(stage.preview(sandbox, 8443), "POST", {}, b"by TLS")
    same((posted["method"], posted["length"]), ("POST", 6))
    same((await go(sandbox.get_info())).network["https_ports"], [8443])


async def port_masked(stage):
    sandbox = await stage.create(network={"mask_request_host": "localhost:${PORT}"})
    await serve(stage, sandbox)
    said = await ask(stage.preview(sandbox, 8000))
    same((said["host"], said["forwarded"]), ("localhost:8000", host_of(stage.preview(sandbox, 8000))))


CASES = {
    "ports/http": port_http,
    "ports/private": port_private,
    "ports/https": port_https,
    "ports/masked": port_masked,
}
