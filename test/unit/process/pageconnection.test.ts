import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import { test } from 'node:test';
import { connectPageServer } from '../../../src/process/pageconnection.ts';

test('a page server is found by addresses of all forms', async (t) => {
  const server = createServer().listen(0, '127.0.0.1');
  t.after(() => server.close());
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  for (const host of ['127.0.0.1', '::ffff:127.0.0.1', '::ffff:7f00:1']) {
    const accepted = once(server, 'connection');
    const connection = await connectPageServer(host, port);
    const [socket] = await accepted;
    socket.destroy();
    connection[Symbol.dispose]();
  }
});
