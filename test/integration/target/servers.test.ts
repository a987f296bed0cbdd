/** Files that go to servers, as another kernel sends them: to sshd, over HTTP and over HTTPS. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { after, test } from 'node:test';
import { httpServer, ownCertificate, sshServer } from '../../../lab/servers.ts';
import { put } from '../../../src/target/http.ts';
import { putBySsh } from '../../../src/target/ssh.ts';
import { rootTest } from '../root.ts';

const folder = mkdtempSync(join(tmpdir(), 'tideover-target-'));
after(() => rmSync(folder, { recursive: true }));

const content = Buffer.alloc(3 << 20, 'not much of it');

/** A stream that fails before its end. */
function broken(): Readable {
  return Readable.from(
    (async function* () {
      yield content;
      throw new Error('filtering the dump ended with 1');
    })(),
  );
}

rootTest('by ssh a file has its name when it is whole, and is for root alone', async () => {
  const server = await sshServer();
  try {
    const known = join(folder, 'known_hosts');
    writeFileSync(known, `storage ${server.hostKey}\n`);
    const keys = { key: server.key, known };
    const login = { user: 'root', alias: 'storage', server: '127.0.0.1', port: server.port };
    const to = join(folder, "ssh's folder");
    await putBySsh(login, to, 'vmcore', Readable.from([content]), keys);
    assert.deepEqual(readFileSync(join(to, 'vmcore')), content);
    assert.equal(statSync(join(to, 'vmcore')).mode & 0o777, 0o600);
    await putBySsh(login, to, 'log', content, keys);
    assert.deepEqual(readFileSync(join(to, 'log')), content);
    await assert.rejects(putBySsh(login, to, 'half', broken(), keys), /filtering the dump ended with 1/);
    assert.ok(!readdirSync(to).includes('half'));
    await assert.rejects(
      putBySsh({ ...login, alias: 'another' }, to, 'vmcore', Readable.from([content]), keys),
      /ssh to another ended with 255/,
    );
    await assert.rejects(
      putBySsh(login, '/proc/no/folder', 'vmcore', Readable.from([content, content]), keys),
      /ssh to storage ended with 1/,
    );
  } finally {
    server.close();
  }
});

const byName = { server: '127.0.0.1' };

test('over HTTP too; a server that has no room is told from one that is gone', async () => {
  const server = await httpServer(folder, { isFull: (path) => path.startsWith('/full/') });
  const url = `http://me:secret@storage.example:${server.port}`;
  try {
    await put(byName, `${url}/http/vmcore`, Readable.from([content, content]));
    assert.deepEqual(readFileSync(join(folder, 'http/vmcore')), Buffer.concat([content, content]));
    await put(byName, `${url}/http/log`, Readable.from([content]), { length: content.length });
    assert.deepEqual(readFileSync(join(folder, 'http/log')), content);
    await assert.rejects(put(byName, `${url}/http/half`, broken()), /filtering the dump ended with 1/);
    assert.ok(!existsSync(join(folder, 'http/half')));
    const endless = Readable.from(
      (async function* () {
        for (;;) yield content;
      })(),
    );
    const full = new RegExp(`^Error: PUT http://storage.example:${server.port}/full/vmcore: 507 Insufficient Storage$`);
    await assert.rejects(put(byName, `${url}/full/vmcore`, endless), full);
  } finally {
    server.close();
  }
  await assert.rejects(put(byName, `${url}/http/vmcore`, Readable.from([content])), /ECONNREFUSED/);
});

test('a stream whose first byte comes late arrives where the server has closed the connection of the file before', async () => {
  const paths: string[] = [];
  const server = createServer(async (request, response) => {
    await request.resume().toArray();
    paths.push(request.url!);
    response.writeHead(201).end();
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const url = `http://storage.example:${(server.address() as AddressInfo).port}`;
  let first: Socket | undefined;
  server.once('connection', (socket) => {
    first = socket;
  });
  try {
    await put(byName, `${url}/log`, Readable.from([content]), { length: content.length });
    const late = async function* () {
      first!.destroy();
      yield content;
    };
    await put(byName, `${url}/vmcore`, Readable.from(late()));
    assert.deepEqual(paths, ['/log', '/vmcore']);
  } finally {
    server.close();
    server.closeAllConnections();
  }
});

test('over HTTPS to a server that this machine trusts, and to no other', async () => {
  const tls = await ownCertificate('storage.example');
  const server = await httpServer(folder, { tls });
  try {
    const to = (name: string) => `https://${name}:${server.port}/https/vmcore`;
    await assert.rejects(put(byName, to('storage.example'), Readable.from([content])), /self-signed certificate/);
    const ca = Buffer.from(tls.cert);
    await assert.rejects(put(byName, to('another.example'), Readable.from([content]), { ca }), /altnames/);
    await put(byName, to('storage.example'), Readable.from([content]), { ca });
    assert.deepEqual(readFileSync(join(folder, 'https/vmcore')), content);
  } finally {
    server.close();
  }
});
