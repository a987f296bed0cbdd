/** What the sections of the page share. */
import type { Html } from './html.ts';

/** A part of the page, under a heading of its own. */
export interface Section {
  readonly id: string;
  readonly title: string;
  /** Beside the title, and in the list of sections. */
  readonly count?: number;
  readonly content: Html;
}

/** `1.5 GB`: powers of 1024, three digits. */
export function byteText(bytes: number): string {
  const units = ['B', 'KB', 'MB', 'GB', 'TB', 'PB'];
  let [value, unit] = [bytes, 0];
  for (; value >= 1000 && unit < units.length - 1; unit++) value /= 1024;
  return `${value >= 100 || unit === 0 ? value.toFixed(0) : value.toPrecision(3)} ${units[unit]}`;
}
