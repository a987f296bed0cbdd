/** Aligned tables. Cells are made printable here; a style is given by the column, so that cells stay plain text. */
import type { Paint, Style } from './color.ts';
import { displayWidth, printableLine, truncate, wrap } from './text.ts';

export interface Column {
  readonly title: string;
  readonly align?: 'left' | 'right';
  /** What happens where the table is wider than the terminal; `keep` columns are never narrowed. */
  readonly overflow?: 'keep' | 'wrap' | 'truncate';
  style?(cell: string): Style | undefined;
}

const GAP = '  ';
const NARROWEST = 10;

/**
 * @param width columns of the terminal, Infinity where there is none
 * @returns lines, without spaces at their ends
 */
export function table(
  columns: readonly Column[],
  rows: readonly (readonly string[])[],
  { width, paint }: { width: number; paint: Paint },
): string[] {
  const cells = rows.map((row) => columns.map((_, c) => printableLine(row[c] ?? '')));
  const titles = columns.map((column) => column.title);
  const widths = fit(columns, [titles, ...cells], width);

  const lines = (row: readonly string[], style: (column: Column, cell: string) => Style | undefined) => {
    const parts = row.map((cell, c) =>
      columns[c]!.overflow === 'truncate' ? [truncate(cell, widths[c]!)] : wrap(cell, widths[c]!),
    );
    const height = Math.max(...parts.map((part) => part.length));
    return Array.from({ length: height }, (_, line) =>
      columns
        .map((column, c) => {
          const text = parts[c]![line] ?? '';
          const space = ' '.repeat(Math.max(0, widths[c]! - displayWidth(text)));
          const chosen = text === '' ? undefined : style(column, row[c]!);
          const shown = chosen === undefined ? text : paint(chosen, text);
          return column.align === 'right' ? space + shown : c === columns.length - 1 ? shown : shown + space;
        })
        .join(GAP)
        .trimEnd(),
    );
  };
  return [
    ...(titles.some((title) => title !== '') ? lines(titles, () => 'bold') : []),
    ...cells.flatMap((row) => lines(row, (column, cell) => column.style?.(cell))),
  ];
}

/** Natural widths; where they are too much, the widest column that may shrink gives way, down to NARROWEST. */
function fit(columns: readonly Column[], rows: readonly (readonly string[])[], width: number): number[] {
  const widths = columns.map((_, c) => Math.max(...rows.map((row) => displayWidth(row[c]!))));
  let excess = widths.reduce((sum, each) => sum + each, GAP.length * (columns.length - 1)) - width;
  const shrinkable = columns.map((_, c) => c).filter((c) => (columns[c]!.overflow ?? 'keep') !== 'keep');
  while (excess > 0) {
    const widest = shrinkable.toSorted((a, b) => widths[b]! - widths[a]!)[0];
    if (widest === undefined || widths[widest]! <= NARROWEST) break;
    widths[widest]!--;
    excess--;
  }
  return widths;
}
