/** HTML that is escaped by how it is made: whatever stands in a template is text, unless it is HTML of a template itself. */
import { printable } from '../../abi/printable.ts';

export class Html {
  readonly text: string;

  /** @param text trusted: it is taken as it is */
  constructor(text: string) {
    this.text = text;
  }
}

export type Part = Html | string | number | undefined | readonly Part[];

/** A template tag. Parts may be lists; undefined is nothing. Fit for the content of elements and for attributes in quotes. */
export function html(strings: TemplateStringsArray, ...parts: readonly Part[]): Html {
  return new Html(strings.map((string, i) => `${string}${i < parts.length ? rendered(parts[i]) : ''}`).join(''));
}

const ENTITIES: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
};

/** Text of a dump may also hold controls, and what turns the direction of the text around. */
function escaped(text: string): string {
  return printable(text).replace(/[&<>"']/g, (character) => ENTITIES[character]!);
}

function rendered(part: Part): string {
  if (part === undefined) return '';
  if (part instanceof Html) return part.text;
  if (typeof part === 'object') return part.map(rendered).join('');
  return escaped(`${part}`);
}
