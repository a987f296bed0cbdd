/** A file on an HTTP server, for a process that asks for its parts and waits. */
import { command } from '../../command.ts';

export const remote = command({
  name: 'remote',
  summary: 'For the command that saves or restores: a file on an HTTP server',
  description: [
    'Answers on stdout what is asked on stdin, as an SFTP server does, for one file that lies on an HTTP server in pieces of 2 MiB.',
  ],
  async run() {
    const { serveHttpFile } = await import('../../../target/bridge.ts');
    await serveHttpFile(0, 1);
    return { json: {}, text: () => [] };
  },
});
