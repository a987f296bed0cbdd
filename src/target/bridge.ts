/**
 * What whoever reads and writes a remote file waits for: ssh(1) with the other machine's SFTP server, or, for HTTP, a process of this
 * program that answers as one. They are processes because what calls them stands still until it has its bytes.
 */
import { spawn } from 'node:child_process';
import { O_CLOEXEC } from '../abi/fcntl.ts';
import { close, pipe2 } from '../sys/files.ts';
import { PiecesFile } from './pieces.ts';
import type { HttpPlace, SshPlace } from './place.ts';
import * as sftp from './sftp.ts';
import { type Keys, sshArguments } from './ssh.ts';

/** What the other process of an HTTP file is told. */
type HttpFile = Pick<HttpPlace, 'server' | 'url'>;

/**
 * Opens a place as a file, which is made where there is none.
 *
 * @param program of tideover, which has `hibernate remote` @throws Error with what the server says
 */
export function openPlace(place: SshPlace | HttpPlace, keys?: Keys, program: string = process.argv[1]!): sftp.Remote {
  const [command, args] =
    place.kind === 'ssh'
      ? ['ssh', ['-s', ...sshArguments(place, keys), 'sftp']]
      : [process.execPath, [...process.execArgv, program, 'hibernate', 'remote']];
  const [theirs, to] = pipe();
  const [from, back] = pipe();
  const child = spawn(command, args, { stdio: [theirs, back, 'inherit'] });
  // Whether it could be started is seen by what it answers.
  child.once('error', () => {});
  child.unref();
  close({ fd: theirs });
  close({ fd: back });
  try {
    const file: HttpFile | undefined = place.kind === 'http' ? { server: place.server, url: place.url } : undefined;
    return sftp.openRemote(place.text, to, from, file === undefined ? (place as SshPlace).path : JSON.stringify(file));
  } catch (error) {
    close({ fd: to });
    close({ fd: from });
    throw error;
  }
}

/** Ends the other process too. @throws Error where the last of it could not be written */
export function closePlace(remote: sftp.Remote): void {
  try {
    sftp.closeRemote(remote);
  } finally {
    close({ fd: remote.to });
    close({ fd: remote.from });
  }
}

function pipe(): readonly [read: number, write: number] {
  const fds = new Int32Array(2);
  pipe2({ pipefd: new Uint8Array(fds.buffer), flags: O_CLOEXEC });
  return [fds[0]!, fds[1]!];
}

/** Speaks SFTP on streams for one file, which is on an HTTP server. Ends when they do. */
export async function serveHttpFile(input: AsyncIterable<Buffer>, output: (bytes: Uint8Array) => void): Promise<void> {
  let file: PiecesFile | undefined;
  for await (const [type, body] of packets(input)) {
    if (type === sftp.SSH_FXP_INIT) {
      output(sftp.packet(sftp.SSH_FXP_VERSION, sftp.u32(3)));
      continue;
    }
    const id = body.subarray(0, 4);
    const status = (code: number, message = '') =>
      output(sftp.packet(sftp.SSH_FXP_STATUS, id, sftp.u32(code), sftp.text(message), sftp.text('')));
    try {
      if (type === sftp.SSH_FXP_OPEN) {
        const { server, url } = JSON.parse(stringAt(body, 4).toString()) as HttpFile;
        file = new PiecesFile({ server }, url);
        output(sftp.packet(sftp.SSH_FXP_HANDLE, id, sftp.text('file')));
        continue;
      }
      if (file === undefined) throw new Error('nothing is open');
      const behind = 8 + stringAt(body, 4).length;
      if (type === sftp.SSH_FXP_READ) {
        const bytes = await file.read(Number(body.readBigUInt64BE(behind)), body.readUInt32BE(behind + 8));
        if (bytes.length === 0) status(sftp.SSH_FX_EOF);
        else output(sftp.packet(sftp.SSH_FXP_DATA, id, sftp.string(bytes)));
      } else if (type === sftp.SSH_FXP_WRITE) {
        await file.write(Number(body.readBigUInt64BE(behind)), stringAt(body, behind + 8));
        status(sftp.SSH_FX_OK);
      } else if (
        type === sftp.SSH_FXP_CLOSE ||
        (type === sftp.SSH_FXP_EXTENDED && stringAt(body, 4).toString() === sftp.FSYNC)
      ) {
        await file.sync();
        status(sftp.SSH_FX_OK);
      } else throw new Error(`sftp.packet ${type} is not known here`);
    } catch (error) {
      status(sftp.SSH_FX_FAILURE, (error as Error).message);
    }
  }
}

/** Type and what follows it. */
async function* packets(input: AsyncIterable<Buffer>): AsyncGenerator<readonly [type: number, body: Buffer]> {
  let rest = Buffer.alloc(0);
  for await (const part of input) {
    rest = Buffer.concat([rest, part]);
    for (;;) {
      if (rest.length < 5) break;
      const end = 4 + rest.readUInt32BE(0);
      if (rest.length < end) break;
      yield [rest[4]!, rest.subarray(5, end)];
      rest = rest.subarray(end);
    }
  }
}

function stringAt(body: Buffer, at: number): Buffer {
  return body.subarray(at + 4, at + 4 + body.readUInt32BE(at));
}
