/** Where the bytes of a dump come from: the seam behind which files of Node, or of a browser, can stand. */
export interface Reader {
  /** Path or name, for error messages. */
  readonly name: string;
  /** In bytes. Infinity where it is not known, as of a device. */
  readonly size: number;
  /**
   * Fills `into` with the bytes from `position` on: below 2^53, or in /proc/kcore a multiple of the page size.
   *
   * @returns how many there were: fewer than asked for only where the source ends or cannot be read further
   */
  read(position: number, into: Uint8Array): number;
  /**
   * Where the next bytes stand that are not known to be zeros, at `position` or after it: the end of the hole of a sparse file.
   * Infinity where only zeros follow. Sources that do not know leave it out.
   */
  nextData?(position: number): number;
  close(): void;
}
