/** Over HTTP (RFC 9110), with Node's own client. */
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { type IncomingMessage, type OutgoingHttpHeaders, request as plainRequest } from 'node:http';
import { request as secureRequest } from 'node:https';
import type { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { CpioEntry } from '../kexec/cpio.ts';

/** Whom this machine trusts, own authorities among them: update-ca-certificates(8), update-ca-trust(8). */
const BUNDLES = ['/etc/ssl/certs/ca-certificates.crt', '/etc/pki/tls/certs/ca-bundle.crt'];
const CERTIFICATES = '/etc/tideover/certificates.pem';
/** Without a byte from or to the server; it may take its time for writing what it was sent to its disk. */
const SILENCE_MS = 120_000;

/** For another kernel of ours: it trusts whom this machine trusts. Where there is no list of these, Node's own is left. */
export function certificates(): CpioEntry[] {
  const bundle = BUNDLES.find((path) => existsSync(path));
  if (bundle === undefined) return [];
  return [
    { name: 'etc/tideover', mode: 0o40700 },
    { name: CERTIFICATES.slice(1), mode: 0o600, data: readFileSync(bundle) },
  ];
}

export interface HttpServer {
  /** Address of it, as names are not known in the other kernel. */
  readonly server: string;
}

/**
 * One request. The server is called by its address, and knows by the name that is in the URL whom it is asked for.
 *
 * @param ca certificates in PEM; not given, those of `certificates()`, or Node's
 * @throws the system's error, or what became of the body
 */
async function send(
  { server }: HttpServer,
  url: string,
  { method, headers = {}, body, ca }: { method: string; headers?: OutgoingHttpHeaders; body?: Readable; ca?: Buffer },
): Promise<IncomingMessage> {
  const target = new URL(url);
  const family = server.includes(':') ? 6 : 4;
  const lookup = (_: string, options: { all?: boolean }, done: (...args: unknown[]) => void) =>
    options.all ? done(null, [{ address: server, family }]) : done(null, server, family);
  const trusted = ca ?? [CERTIFICATES, ...BUNDLES].flatMap((path) => (existsSync(path) ? [readFileSync(path)] : []))[0];
  const request = target.protocol === 'https:' ? secureRequest : plainRequest;
  const secure = target.protocol === 'https:' && trusted !== undefined ? { ca: trusted } : {};
  // A connection for each: one that was used before is closed by the server while the first byte of a stream is long in coming, and who
  // only waits for what to ask for next does not see that.
  const sent = request(target, { method, headers, lookup: lookup as never, ...secure, agent: false });
  const isStream = body !== undefined && headers['Content-Length'] === undefined;
  // Then it may refuse at once.
  if (isStream) sent.flushHeaders();
  const silence = new Error(`no sign of ${target.host} for ${SILENCE_MS / 1000} s`);
  sent.setTimeout(SILENCE_MS, () => sent.destroy(Object.assign(silence, { code: 'ETIMEDOUT' })));
  const answered = once(sent, 'response') as Promise<[IncomingMessage]>;
  // One that has no room says so before it has all.
  const fed = (body === undefined ? Promise.resolve(void sent.end()) : pipeline(body, sent)).catch(() => {});
  const [response] = await answered.catch((error: Error) => {
    throw body?.errored ?? error;
  });
  if (isGood(response)) await fed;
  else body?.destroy();
  return response;
}

/**
 * All of a stream, or nothing: to the server a request whose body was cut is no request (RFC 9112, 8), and so the name is there when
 * the file is whole. A stream that fails cuts it.
 *
 * @param length of the body, where it is known; else it goes in chunks
 * @throws Error with what the server said, or what became of the stream
 */
export async function put(
  server: HttpServer,
  url: string,
  body: Readable,
  { length, ca }: { length?: number; ca?: Buffer } = {},
): Promise<void> {
  const headers = length === undefined ? {} : { 'Content-Length': length };
  const response = await send(server, url, { method: 'PUT', headers, body, ...(ca && { ca }) });
  if (!isGood(response)) {
    response.resume();
    throw new Error(`PUT ${shownUrl(url)}: ${response.statusCode} ${response.statusMessage}`);
  }
  for await (const _ of response);
}

/**
 * All of it, or as much as there is room for.
 *
 * @returns how many bytes that is, undefined where there is none @throws Error with what the server said
 */
export async function get(server: HttpServer, url: string, into: Uint8Array): Promise<number | undefined> {
  const response = await send(server, url, { method: 'GET' });
  const isWanted = isGood(response);
  let done = 0;
  for await (const part of response as AsyncIterable<Buffer>) {
    if (!isWanted) continue;
    const taken = part.subarray(0, into.length - done);
    into.set(taken, done);
    done += taken.length;
  }
  if (response.statusCode === 404) return undefined;
  if (!isWanted) throw new Error(`GET ${shownUrl(url)}: ${response.statusCode} ${response.statusMessage}`);
  return done;
}

function isGood({ statusCode = 0 }: IncomingMessage): boolean {
  return statusCode >= 200 && statusCode <= 299;
}

function shownUrl(url: string): string {
  const shown = new URL(url);
  shown.username = '';
  shown.password = '';
  return shown.href;
}
