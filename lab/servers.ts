/** Servers on this machine's loopback, to which guests save: an ssh server, and an HTTP server that takes what is PUT to it. */
import { type ChildProcess, spawn } from 'node:child_process';
import {
  createReadStream,
  createWriteStream,
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { createServer as createHttp, type RequestListener } from 'node:http';
import { createServer as createHttps } from 'node:https';
import { type AddressInfo, createServer, isIP, type Server } from 'node:net';
import { dirname, join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { run } from './command.ts';
import { requirePackages } from './packages.ts';
import { removeTemporary, temporaryFolder } from './temporary.ts';

export interface OwnServer {
  readonly port: number;
  close(): void;
}

export interface SshServer extends OwnServer {
  /** Of somebody who may log in as root: path of a private key. */
  readonly key: string;
  /** Its own: type and key, as they stand in known_hosts behind the name. */
  readonly hostKey: string;
}

/**
 * sshd(8) for each connection, with keys of its own. Its files are in a folder of this process's.
 * @throws UnsupportedError where packages are missing
 */
export async function sshServer(): Promise<SshServer> {
  await requirePackages('ssh server');
  const folder = temporaryFolder();
  const at = (name: string) => join(folder, name);
  for (const name of ['host', 'key'])
    await run(['ssh-keygen', '-q', '-t', 'ed25519', '-N', '', '-C', '', '-f', at(name)]);
  const options = {
    HostKey: at('host'),
    AuthorizedKeysFile: at('key.pub'),
    StrictModes: 'no',
    UsePAM: 'no',
    PasswordAuthentication: 'no',
    PermitRootLogin: 'prohibit-password',
    PidFile: 'none',
    Subsystem: 'sftp internal-sftp',
  };
  writeFileSync(
    at('config'),
    Object.entries(options)
      .map(([name, value]) => `${name} ${value}\n`)
      .join(''),
  );
  // Where sshd shuts itself in before somebody has logged in.
  mkdirSync('/run/sshd', { recursive: true, mode: 0o755 });
  const running = new Set<ChildProcess>();
  const server = createServer({ pauseOnConnect: true }, (socket) => {
    const child = spawn('/usr/sbin/sshd', ['-i', '-e', '-f', at('config')], { stdio: [socket, socket, 'ignore'] });
    running.add(child);
    child.once('exit', () => running.delete(child));
    socket.destroy();
  });
  const port = await listening(server);
  return {
    port,
    key: at('key'),
    hostKey: (await run(['cut', '-d ', '-f1,2', at('host.pub')])).trim(),
    close() {
      server.close();
      for (const child of running) child.kill();
    },
  };
}

export interface Certificate {
  /** Both in PEM. */
  readonly key: string;
  readonly cert: string;
}

/** That of a server, which nobody vouches for but itself. @param name of the server, or its IPv4 address */
export async function ownCertificate(name: string): Promise<Certificate> {
  const folder = temporaryFolder();
  const at = (file: string) => join(folder, file);
  const request = ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2'];
  const of = ['-subj', `/CN=${name}`, '-addext', `subjectAltName=${isIP(name) === 0 ? 'DNS' : 'IP'}:${name}`];
  await run(['openssl', ...request, ...of, '-keyout', at('key'), '-out', at('cert')]);
  const [key, cert] = [readFileSync(at('key'), 'utf8'), readFileSync(at('cert'), 'utf8')];
  removeTemporary(folder);
  return { key, cert };
}

/**
 * Takes what is PUT into a folder, and gives it away again, also in parts. A body that is cut leaves nothing.
 *
 * @param isFull says of a path whether there is no room for it @param tls for https
 */
export async function httpServer(
  folder: string,
  { isFull = () => false, tls }: { isFull?: (path: string) => boolean; tls?: Certificate } = {},
): Promise<OwnServer> {
  const answer: RequestListener = async (request, response) => {
    const path = join(folder, decodeURIComponent(request.url!));
    const end = (status: number) => {
      response.statusCode = status;
      response.end();
    };
    if (request.method === 'PUT') {
      if (isFull(request.url!)) {
        // Closed at once, the connection would be reset, and the answer be lost on the way.
        request.on('error', () => {}).resume();
        return end(507);
      }
      mkdirSync(dirname(path), { recursive: true });
      await pipeline(request, createWriteStream(`${path}.part`)).catch(() => {});
      if (!request.complete) return rmSync(`${path}.part`);
      renameSync(`${path}.part`, path);
      return end(201);
    }
    if (!existsSync(path) || !statSync(path).isFile()) return end(404);
    const { size } = statSync(path);
    const [, from, to] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '') ?? [];
    const [start, last] = from === undefined ? [0, size - 1] : [Number(from), Math.min(Number(to), size - 1)];
    if (start > last) return end(416);
    response.writeHead(from === undefined ? 200 : 206, {
      'Content-Length': last - start + 1,
      ...(from !== undefined && { 'Content-Range': `bytes ${start}-${last}/${size}` }),
    });
    if (request.method === 'HEAD') return response.end();
    await pipeline(createReadStream(path, { start, end: last }), response).catch(() => {});
  };
  const server = tls === undefined ? createHttp(answer) : createHttps(tls, answer);
  const port = await listening(server);
  return {
    port,
    close() {
      server.close();
      server.closeAllConnections();
    },
  };
}

/** nfs-ganesha, which exports a folder as /dumps by NFS 4. @param folder on a file system that has handles of files: no overlay */
export async function nfsServer(folder: string): Promise<OwnServer> {
  await requirePackages('nfs server');
  const own = temporaryFolder();
  const at = (name: string) => join(own, name);
  const port = await freePort();
  const core = `Protocols = 4; NFS_Port = ${port}; Bind_addr = 127.0.0.1; Enable_NLM = false; Enable_RQUOTA = false; Enable_UDP = false;`;
  const access = 'Access_Type = RW; Squash = No_Root_Squash; SecType = sys; Transports = TCP; Protocols = 4;';
  writeFileSync(
    at('config'),
    `NFS_CORE_PARAM { ${core} }
NFSv4 { Graceless = true; RecoveryBackend = fs; RecoveryRoot = "${at('recovery')}"; Minor_Versions = 0,1,2; }
EXPORT { Export_Id = 1; Path = ${folder}; Pseudo = /dumps; ${access} FSAL { Name = VFS; } }
`,
  );
  mkdirSync(at('recovery'));
  const options = ['-F', '-f', at('config'), '-L', at('log'), '-p', at('pid')];
  const server = spawn('setpriv', ['--pdeathsig', 'KILL', 'ganesha.nfsd', ...options], { stdio: 'ignore' });
  server.unref();
  return { port, close: () => void server.kill('SIGKILL') };
}

async function freePort(): Promise<number> {
  const server = createServer();
  const port = await listening(server);
  await new Promise((resolve) => server.close(resolve));
  return port;
}

async function listening(server: Server): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  // A guest that does not start leaves it open.
  server.unref();
  return (server.address() as AddressInfo).port;
}
