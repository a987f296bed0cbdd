/**
 * What host and guest say to each other: a text line and the bytes it announces. The line is short enough for a shell
 * to read; the bytes are anything.
 *
 *   to the guest    ~lab AGENT ping
 *                   ~lab AGENT input ID LENGTH          bytes added to the job's standard input
 *                   ~lab AGENT put ID LENGTH 'PATH'     bytes added to a file; ends like a job
 *                   ~lab AGENT run ID LENGTH            a shell script
 *                   ~lab AGENT stream ID LENGTH         the same, stdout sent as it comes
 *                   ~lab AGENT kill ID
 *   to the host     ~lab hello AGENT RELEASE            after each start, to each ping
 *                   ~lab out ID LENGTH                  stdout of a stream
 *                   ~lab exit ID STATUS OUT ERR         the end: stdout and stderr of these lengths follow
 *
 * AGENT is boot_id.PID of the agent that is spoken to. A request for another one is answered with hello: that is how
 * each side learns that the guest has another kernel. A kernel may go away in the middle of a frame. The next agent's
 * hello is then taken for part of its bytes; but nothing follows a hello until it is answered, so a hello after
 * which the line falls silent in the middle of a frame is one.
 */

export type Frame =
  | { readonly kind: 'hello'; readonly agent: string; readonly release: string }
  | { readonly kind: 'out'; readonly id: number; readonly data: Buffer }
  | {
      readonly kind: 'exit';
      readonly id: number;
      readonly status: number;
      readonly stdout: Buffer;
      readonly stderr: Buffer;
    };

const mark = '~lab ';
const newline = 0x0a;
const agentName = '[0-9a-f-]{36}\\.[0-9]+';
const helloLine = new RegExp(`^hello (${agentName}) (\\S+)$`);
const outLine = /^out ([0-9]{1,9}) ([0-9]{1,15})$/;
const exitLine = /^exit ([0-9]{1,9}) ([0-9]{1,3}) ([0-9]{1,15}) ([0-9]{1,15})$/;
const helloAtEnd = new RegExp(`${mark}hello (${agentName}) (\\S+)\\n$`);

/** Longer than any header line. */
const LINE_MAX = 512;

/** Makes frames of a stream of bytes. What is no frame (a firmware's greeting, the rest of a torn frame) is passed over. */
export class FrameReader {
  #header: Buffer[] = [];
  #headerLength = 0;
  #missing = 0;
  #payload: Buffer[] = [];
  #finish: ((payload: Buffer) => Frame) | undefined;

  /** Takes the next bytes and returns the frames that they complete. */
  push(bytes: Buffer): Frame[] {
    const frames: Frame[] = [];
    for (let at = 0; at < bytes.length; ) {
      if (this.#finish !== undefined) {
        const end = Math.min(bytes.length, at + this.#missing);
        this.#payload.push(bytes.subarray(at, end));
        this.#missing -= end - at;
        at = end;
        this.#complete(frames);
        continue;
      }
      const end = bytes.indexOf(newline, at);
      this.#addToLine(bytes.subarray(at, end < 0 ? bytes.length : end));
      if (end < 0) break;
      at = end + 1;
      this.#line(frames);
    }
    return frames;
  }

  /** To be called when no byte has come for a while: gives the hello that a torn frame has swallowed, if there is one. */
  silence(): Frame[] {
    if (this.#finish === undefined) return [];
    const tail = Buffer.concat(this.#payload.slice(-LINE_MAX)).subarray(-LINE_MAX).toString('latin1');
    const hello = helloAtEnd.exec(tail);
    if (hello === null) return [];
    this.#reset();
    return [{ kind: 'hello', agent: hello[1]!, release: hello[2]! }];
  }

  #addToLine(part: Buffer): void {
    this.#header.push(part);
    this.#headerLength += part.length;
    if (this.#headerLength <= LINE_MAX) return;
    const tail = Buffer.concat(this.#header).subarray(-LINE_MAX);
    this.#header = [tail];
    this.#headerLength = tail.length;
  }

  #line(frames: Frame[]): void {
    const line = Buffer.concat(this.#header).toString('latin1');
    this.#header = [];
    this.#headerLength = 0;
    const at = line.lastIndexOf(mark);
    if (at < 0) return;
    const text = line.slice(at + mark.length).trimEnd();
    const hello = helloLine.exec(text);
    if (hello) frames.push({ kind: 'hello', agent: hello[1]!, release: hello[2]! });
    const out = outLine.exec(text)?.slice(1).map(Number) as [number, number] | undefined;
    if (out) this.#expect(out[1], (data) => ({ kind: 'out', id: out[0], data }), frames);
    const exit = exitLine.exec(text)?.slice(1).map(Number) as [number, number, number, number] | undefined;
    if (!exit) return;
    const [id, status, stdout, stderr] = exit;
    const parts = (data: Buffer) => ({ stdout: data.subarray(0, stdout), stderr: data.subarray(stdout) });
    this.#expect(stdout + stderr, (data) => ({ kind: 'exit', id, status, ...parts(data) }), frames);
  }

  #expect(length: number, finish: (payload: Buffer) => Frame, frames: Frame[]): void {
    this.#missing = length;
    this.#finish = finish;
    this.#complete(frames);
  }

  #complete(frames: Frame[]): void {
    if (this.#missing > 0) return;
    frames.push(this.#finish!(Buffer.concat(this.#payload)));
    this.#reset();
  }

  #reset(): void {
    this.#finish = undefined;
    this.#payload = [];
    this.#missing = 0;
  }
}

/** A request to `agent`. @param words verb, ID and what else stands before the length */
export function request(
  agent: string,
  verb: string,
  id = 0,
  payload: Uint8Array = new Uint8Array(0),
  path = '',
): Buffer {
  const rest = path === '' ? '' : ` ${quote(path)}`;
  // The first newline ends whatever a reader has taken for a line so far.
  return Buffer.concat([Buffer.from(`\n${mark}${agent} ${verb} ${id} ${payload.length}${rest}\n`), payload]);
}

/** One word for a shell. */
export function quote(word: string): string {
  return `'${word.replaceAll("'", "'\\''")}'`;
}
