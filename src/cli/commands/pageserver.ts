import { createServer, type Socket } from 'node:net';
import { command, type Flags } from '../command.ts';
import { imageFlags, needsDirectory, openParent } from '../criu/images.ts';
import { ABOUT_OTHERS, otherOptions, refuseUnbuilt } from '../criu/options.ts';
import { pageServerFlags, portOf } from '../criu/pageserver.ts';
import { treeFlags } from '../criu/predump.ts';
import { byteSize } from '../progress.ts';

const flags = {
  imagesDir: imageFlags.imagesDir,
  address: pageServerFlags.address,
  port: pageServerFlags.port,
  parent: treeFlags.parent,
} as const satisfies Flags;

export const pageServer = command({
  name: 'page-server',
  group: 'Processes',
  summary: 'Take the memory of a checkpoint that is made elsewhere',
  description: [
    'Waits for one checkpoint or pre-dump --page-server, of tideover or of CRIU, and writes what it sends into the images directory, where all ' +
      'other files of the image must be brought for a restore. Nobody is asked who he is, and nothing is encrypted: it ' +
      'listens on 127.0.0.1 unless --address says otherwise, as for a tunnel of ssh(1). With port 0 it says which one it got.',
    ABOUT_OTHERS,
    'With --json: {"port", "bytes" (of memory)}.',
  ],
  flags: { ...flags, ...otherOptions(flags) },
  exits: {
    0: 'All that was sent is on the disk.',
    1: 'The connection ended before, or the files cannot be written; nothing of them stays.',
    5: 'What came is no memory of a checkpoint.',
  },
  examples: [
    { line: 'tideover page-server -D /var/tmp/image --port 9876', does: 'here' },
    {
      line: 'tideover checkpoint -t 1234 -D /var/tmp/rest --page-server --address 127.0.0.1 --port 9876',
      does: 'and there, through ssh -L 9876:127.0.0.1:9876',
    },
  ],
  async run(io, { flags }) {
    refuseUnbuilt(flags);
    const directory = flags.imagesDir ?? '.';
    needsDirectory(directory, 'page-server');
    const { createPages } = await import('../../image/directory.ts');
    const { PageReceiver } = await import('../../image/pagexfer.ts');
    const draft = createPages(directory, flags.parent, (await import('../../process/disk.ts')).writers);
    const parent = await openParent(directory, flags.parent);
    const server = createServer({ noDelay: true });
    try {
      const client = await accept(server, flags.address ?? '127.0.0.1', portOf(flags.port, 0), io);
      const receiver = new PageReceiver(draft, parent, (bytes) => client.socket.write(bytes));
      for await (const chunk of client.socket) receiver.push(chunk as Buffer);
      if (!receiver.isDone) throw new Error('the connection ended before all memory had come');
      io.info(`${byteSize(receiver.bytes)} of memory`);
      return { json: { port: client.port, bytes: receiver.bytes }, text: () => [] };
    } catch (error) {
      draft.abort();
      throw error;
    } finally {
      server.close();
    }
  },
});

/** Waits for one client, and for no other one. */
function accept(
  server: ReturnType<typeof createServer>,
  host: string,
  port: number,
  io: { readonly signal: AbortSignal; info(text: string): void },
): Promise<{ socket: Socket; port: number }> {
  return new Promise((resolve, reject) => {
    let got = port;
    io.signal.addEventListener('abort', () => {
      server.close();
      reject(new DOMException('interrupted', 'AbortError'));
    });
    server.once('error', reject);
    server.once('connection', (socket) => {
      server.close();
      io.signal.addEventListener('abort', () => socket.destroy());
      resolve({ socket, port: got });
    });
    server.listen({ host, port }, () => {
      got = (server.address() as { port: number }).port;
      io.info(`waiting on ${host} port ${got}`);
    });
  });
}
