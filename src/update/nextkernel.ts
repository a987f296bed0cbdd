/** The kernel that an update goes to, loaded so that preserved memory is left alone by it. */
import { existsSync, statSync } from 'node:fs';
import { UnsupportedError } from '../errors.ts';
import { reuseCommandLine } from '../kexec/commandline.ts';
import { readKernel } from '../kexec/kernelfile.ts';
import { type KernelFiles, loadKernel, planKernel } from '../kexec/kexec.ts';
import { unload } from '../kexec/load.ts';
import type { Reservation } from '../kexec/memorymap.ts';
import { readProcText } from '../sys/proc.ts';
import { type PreserveAs, preservedFor, withLocation } from './preserved.ts';
import { rememberLoaded } from './state.ts';

export interface KernelRequest {
  readonly kernel: string;
  /** Those of the distribution for it where none is given. */
  readonly initrds: readonly string[];
  /** Added to the running kernel's command line. */
  readonly append: string;
}

export class NextKernel {
  readonly release: string;
  readonly initrds: readonly string[];
  readonly #files: KernelFiles;
  #loaded = false;
  #reserved: readonly Reservation[] | undefined;
  /** Chosen once: the modules of a kernel are many. */
  #preserveAs: PreserveAs | undefined;

  /** @throws FormatError, UnsupportedError where it is no kernel, or has no initramfs */
  constructor({ kernel, initrds, append }: KernelRequest) {
    this.release = readKernel(kernel).version.split(' ')[0]!;
    this.initrds = initrds.length > 0 ? initrds : [initrdFor(kernel, this.release)];
    const commandLine = reuseCommandLine(readProcText('/proc/cmdline').trim(), append);
    this.#files = { kernel, initrds: this.initrds, commandLine };
  }

  get commandLine(): string {
    return this.#files.commandLine;
  }

  /**
   * Whether it could be loaded now.
   *
   * @returns bytes of memory that it takes until it starts: what it is loaded to has other pages until then, and is read once more
   * @throws UnsupportedError, FormatError as `kexec load`
   */
  check(): number {
    const { kernel, initrds } = this.#files;
    const { plan } = planKernel(this.#files);
    if (plan === undefined) return 2 * [kernel, ...initrds].reduce((sum, file) => sum + statSync(file).size, 0);
    return plan.segments.reduce((sum, { size, bytes }) => sum + size + bytes.length, 0);
  }

  /** Loads it, with what is in preserved memory now left out of its memory map. @throws SyscallError as kexec_load(2) */
  load(): void {
    const { preserved, files } = this.#now();
    loadKernel(files, { reserve: preserved.reserve });
    this.#loaded = true;
    preserved.remember();
    this.#reserved = preserved.reserve;
  }

  /** Takes back what load() did. @returns whether it had done anything: who is refused a load is refused this as well */
  unload(): boolean {
    if (this.#loaded) unloadNext();
    return this.#loaded;
  }

  /** To be called when everything is in preserved memory: loads it again only where there are other pages by now. */
  settle(): void {
    const { preserved } = this.#now();
    if (JSON.stringify(preserved.reserve) === JSON.stringify(this.#reserved)) preserved.remember();
    else this.load();
  }

  #now() {
    const { commandLine } = this.#files;
    const preserved = preservedFor(this.#preserveAs, { release: this.release, commandLine });
    this.#preserveAs = preserved.type;
    const files = { ...this.#files, commandLine: withLocation(commandLine, preserved.parameters) };
    return { preserved, files };
  }
}

/** Takes back what load() did in a process that has ended. */
export function unloadNext(): void {
  unload();
  rememberLoaded(undefined);
}

/** As Debian, Fedora and others name them. */
function initrdFor(kernel: string, release: string): string {
  const folder = kernel.slice(0, kernel.lastIndexOf('/') + 1) || './';
  const names = [`initrd.img-${release}`, `initramfs-${release}.img`, `initrd-${release}`];
  const found = names.map((name) => `${folder}${name}`).find((path) => existsSync(path));
  if (found !== undefined) return found;
  throw new UnsupportedError({
    what: `kernel ${release}`,
    why: `there is no ${names.join(', ')} in ${folder}`,
    remedy: 'give it with --initrd',
  });
}
