import assert from 'node:assert/strict';
import { once } from 'node:events';
import WebSocket from 'ws';
import { type Cases, eventually, sh } from './stage.ts';

/** Answers each request with what it asked for and which host it named. */
const SERVER = `
import http.server, json, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        length = int(self.headers.get("content-length") or 0)
        said = {"path": self.path, "method": self.command, "body": self.rfile.read(length).decode(),
                "host": self.headers.get("host"), "forwarded": self.headers.get("x-forwarded-host")}
        body = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    do_POST = do_GET
    def log_message(self, *args): pass
http.server.ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Handler).serve_forever()
`;

/** The same by TLS, with a certificate that nobody signed but itself. */
const CERTIFICATE =
  'openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=own -keyout key.pem -out cert.pem';
const TLS_SERVER = SERVER.replace(
  /http\.server\.ThreadingHTTPServer.*/,
  `import ssl
server = http.server.ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("cert.pem", "key.pem")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()`,
);

/** Sends back what a WebSocket's text messages say; short ones are enough. */
const ECHO = `
import base64, hashlib, socketserver
class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        key = None
        while (line := self.rfile.readline().strip()):
            name, _, value = line.partition(b":")
            if name.lower() == b"sec-websocket-key": key = value.strip()
        accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        self.wfile.write(b"HTTP/1.1 101 Switching Protocols\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\nSec-WebSocket-Accept: " + accept + b"\\r\\n\\r\\n")
        while (head := self.rfile.read(2)):
            mask = self.rfile.read(4)
            text = bytes(byte ^ mask[at % 4] for at, byte in enumerate(self.rfile.read(head[1] & 127)))
            if head[0] & 15 == 8: return
            self.wfile.write(bytes([129, len(text)]) + text)
socketserver.ThreadingTCPServer.allow_reuse_address = True
socketserver.ThreadingTCPServer(("127.0.0.1", 7000), Handler).serve_forever()
`;

interface Said {
  path: string;
  method: string;
  body: string;
  host: string;
  forwarded: string | null;
}

async function ask(url: string, init: RequestInit = {}): Promise<Said> {
  return eventually(async () => {
    const answer = await fetch(url, init);
    assert.equal(answer.status, 200, await answer.clone().text());
    return (await answer.json()) as Said;
  });
}

export const ports: Cases = {
  'ports/http': async ({ create, preview }) => {
    const sandbox = await create();
    await sandbox.files.write('server.py', SERVER);
    // One for everybody, one for the guest's own loopback.
    for (const [address, port] of [
      ['0.0.0.0', 8000],
      ['127.0.0.1', 8001],
    ] as const) {
      await sandbox.commands.run(`python3 server.py ${address} ${port}`, { background: true, timeoutMs: 0 });
      const said = await ask(`${preview(sandbox, port)}/a%20path?x=1`);
      assert.deepEqual(said, {
        path: '/a%20path?x=1',
        method: 'GET',
        body: '',
        host: new URL(preview(sandbox, port)).host,
        forwarded: said.forwarded,
      });
      const posted = await ask(preview(sandbox, port), { method: 'POST', body: 'x'.repeat(100_000) });
      assert.deepEqual([posted.method, posted.body.length], ['POST', 100_000]);
    }
    const closed = await fetch(preview(sandbox, 8002));
    assert.equal(closed.status, 502);
    const body = (await closed.json()) as Record<string, unknown>;
    assert.deepEqual([body.sandboxId, body.port, body.code], [sandbox.sandboxId, 8002, 502]);
    assert.match(String(body.message), /port is not open/);
    await sandbox.kill();
    const gone = await fetch(preview(sandbox, 8000));
    assert.equal(gone.status, 502);
    assert.match(((await gone.json()) as { message: string }).message, /was not found/);
  },

  'ports/websocket': async ({ create, preview }) => {
    const sandbox = await create();
    await sandbox.files.write('echo.py', ECHO);
    await sandbox.commands.run('python3 echo.py', { background: true, timeoutMs: 0 });
    await eventually(async () => assert.equal(await sh(sandbox, 'ss -Hltn sport = 7000 | wc -l'), '1'));
    const socket = await eventually(async () => {
      const opening = new WebSocket(`${preview(sandbox, 7000).replace('http', 'ws')}/chat`);
      await once(opening, 'open');
      return opening;
    });
    for (const text of ['one', 'two 🦀']) {
      socket.send(text);
      const [answer] = await once(socket, 'message');
      assert.equal(String(answer), text);
    }
    socket.close();
  },

  'ports/private': async ({ create, preview }) => {
    const sandbox = await create({ network: { allowPublicTraffic: false } });
    const token = sandbox.trafficAccessToken;
    assert.ok(token);
    await sandbox.files.write('server.py', SERVER);
    await sandbox.commands.run('python3 server.py 0.0.0.0 8000', { background: true, timeoutMs: 0 });
    const url = preview(sandbox, 8000);
    for (const headers of [{}, { 'e2b-traffic-access-token': 'wrong' }]) {
      const refused = await fetch(url, { headers });
      assert.equal(refused.status, 403);
      assert.equal(((await refused.json()) as { code: number }).code, 403);
    }
    const said = await ask(url, { headers: { 'e2b-traffic-access-token': token } });
    assert.equal(said.method, 'GET');
    assert.equal((await sandbox.getInfo()).network?.allowPublicTraffic, false);
  },

  'ports/https': async ({ create, preview }) => {
    const sandbox = await create({ network: { httpsPorts: [8443] } });
    await sh(sandbox, CERTIFICATE);
    await sandbox.files.write('server.py', TLS_SERVER);
    await sandbox.commands.run('python3 server.py 0.0.0.0 8443', { background: true, timeoutMs: 0 });
    const posted = await ask(preview(sandbox, 8443), { method: 'POST', body: 'by TLS' });
    assert.deepEqual([posted.method, posted.body], ['POST', 'by TLS']);
    assert.deepEqual((await sandbox.getInfo()).network?.httpsPorts, [8443]);
  },

  'ports/masked': async ({ create, preview }) => {
    // biome-ignore lint/suspicious/noTemplateCurlyInString: it is the API's placeholder
    const sandbox = await create({ network: { maskRequestHost: 'localhost:${PORT}' } });
    await sandbox.files.write('server.py', SERVER);
    await sandbox.commands.run('python3 server.py 0.0.0.0 8000', { background: true, timeoutMs: 0 });
    const said = await ask(preview(sandbox, 8000));
    assert.equal(said.host, 'localhost:8000');
    assert.equal(said.forwarded, new URL(preview(sandbox, 8000)).host);
  },
};
