/**
 * A real browser for tests: Debian's chromium, told what to do by the DevTools protocol over a pipe
 * (https://chromedevtools.github.io/devtools-protocol/).
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable, Writable } from 'node:stream';
import { requirePackages } from '../lab/packages.ts';

/** Root has to do without its sandbox; nothing that it does by itself reaches the network. */
const flags = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--disable-dev-shm-usage',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--remote-debugging-pipe',
  '--force-device-scale-factor=1',
];

type Answer = Readonly<Record<string, unknown>>;

export interface Event {
  readonly method: string;
  readonly params: Answer;
}

export interface Page {
  /** What the page did since it was opened: logs, requests, violations of its policy. */
  readonly events: readonly Event[];
  /** A call of the protocol. @throws where the browser answers with an error */
  call(method: string, params?: object): Promise<Answer>;
  /** The value of an expression, which may be a promise. @throws what it throws */
  evaluate<T>(expression: string): Promise<T>;
  /** A key, by its name: `Tab`, `Enter`, `a`. */
  press(key: string): Promise<void>;
  type(text: string): Promise<void>;
  /** PNG. */
  screenshot(whole?: boolean): Promise<Buffer>;
}

/** Opens an address in a browser of its own, for as long as `use` takes. */
export async function withPage(
  address: string,
  size: { readonly width: number; readonly height: number },
  use: (page: Page) => Promise<void>,
): Promise<void> {
  await requirePackages('browser');
  const profile = mkdtempSync(join(tmpdir(), 'tideover-browser-'));
  const browser = spawn('chromium', [...flags, `--user-data-dir=${profile}`], {
    stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'],
    env: { ...process.env, HOME: profile },
    // With a group of its own, so that its helpers end with it.
    detached: true,
  });
  const ended = once(browser, 'exit');
  try {
    const connection = new Connection(browser.stdio[3] as Writable, browser.stdio[4] as Readable);
    void ended.then(() => connection.close(new Error('the browser has ended')));
    await use(await openPage(connection, address, size));
  } finally {
    if (browser.pid !== undefined && browser.exitCode === null) process.kill(-browser.pid, 'SIGKILL');
    await ended;
    rmSync(profile, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
  }
}

async function openPage(
  connection: Connection,
  address: string,
  { width, height }: { readonly width: number; readonly height: number },
): Promise<Page> {
  const { targetId } = await connection.call('Target.createTarget', { url: 'about:blank' });
  const { sessionId } = await connection.call('Target.attachToTarget', { targetId, flatten: true });
  const call = (method: string, params: object = {}) => connection.call(method, params, sessionId as string);
  const metrics = { width, height, deviceScaleFactor: 1, mobile: false };
  for (const domain of ['Page', 'Runtime', 'Log', 'Network', 'Accessibility']) await call(`${domain}.enable`);
  await call('Emulation.setDeviceMetricsOverride', metrics);
  const loaded = connection.next('Page.loadEventFired');
  await call('Page.navigate', { url: address });
  await loaded;
  return {
    events: connection.events,
    call,
    async evaluate<T>(expression: string) {
      const answer = await call('Runtime.evaluate', { expression, awaitPromise: true, returnByValue: true });
      const failed = answer.exceptionDetails as { exception?: { description?: string } } | undefined;
      if (failed !== undefined) throw new Error(failed.exception?.description ?? 'the expression failed');
      return (answer.result as { value: T }).value;
    },
    async press(key) {
      const text = key === 'Enter' ? { text: '\r' } : key.length === 1 ? { text: key } : {};
      const code = { Tab: 9, Enter: 13, Escape: 27 }[key];
      const of = { key, code: key, ...text, ...(code !== undefined && { windowsVirtualKeyCode: code }) };
      await call('Input.dispatchKeyEvent', { type: 'keyDown', ...of });
      await call('Input.dispatchKeyEvent', { type: 'keyUp', ...of });
    },
    async type(text) {
      await call('Input.insertText', { text });
    },
    async screenshot(whole = false) {
      if (whole) {
        const { cssContentSize } = await call('Page.getLayoutMetrics');
        const height = Math.ceil((cssContentSize as { height: number }).height);
        await call('Emulation.setDeviceMetricsOverride', { ...metrics, height });
      }
      const { data } = await call('Page.captureScreenshot', { format: 'png' });
      if (whole) await call('Emulation.setDeviceMetricsOverride', metrics);
      return Buffer.from(data as string, 'base64');
    },
  };
}

/** Messages of the protocol: JSON, each with a NUL behind it. */
class Connection {
  readonly events: Event[] = [];
  readonly #to: Writable;
  readonly #waiting = new Map<number, PromiseWithResolvers<Answer>>();
  #last = 0;
  readonly #expected = new Map<string, PromiseWithResolvers<void>>();
  #received = '';

  constructor(to: Writable, from: Readable) {
    this.#to = to;
    to.on('error', (error) => this.close(error));
    from.setEncoding('utf8').on('data', (text: string) => this.#receive(text));
  }

  call(method: string, params: object, sessionId?: string): Promise<Answer> {
    const id = ++this.#last;
    const answer = Promise.withResolvers<Answer>();
    this.#waiting.set(id, answer);
    this.#to.write(`${JSON.stringify({ id, method, params, ...(sessionId !== undefined && { sessionId }) })}\0`);
    return answer.promise;
  }

  next(method: string): Promise<void> {
    const expected = Promise.withResolvers<void>();
    this.#expected.set(method, expected);
    return expected.promise;
  }

  close(error: Error): void {
    for (const { reject } of [...this.#waiting.values(), ...this.#expected.values()]) reject(error);
    this.#waiting.clear();
    this.#expected.clear();
  }

  #receive(text: string): void {
    const messages = (this.#received + text).split('\0');
    this.#received = messages.pop()!;
    for (const message of messages) {
      const { id, method, params, result, error } = JSON.parse(message);
      if (id === undefined) {
        this.events.push({ method, params });
        this.#expected.get(method)?.resolve();
        this.#expected.delete(method);
      } else {
        const answer = this.#waiting.get(id);
        this.#waiting.delete(id);
        if (error !== undefined) answer?.reject(new Error(`${error.message} ${error.data ?? ''}`));
        else answer?.resolve(result);
      }
    }
  }
}
