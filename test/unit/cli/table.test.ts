import assert from 'node:assert/strict';
import test from 'node:test';
import { painter } from '../../../src/cli/color.ts';
import { table } from '../../../src/cli/table.ts';

const plain = painter(false);

test('columns are aligned and titled', () => {
  const columns = [{ title: 'PID', align: 'right' }, { title: 'NAME' }, { title: 'STATE' }] as const;
  const rows = [
    ['1', 'init', 'sleeping'],
    ['4711', '漢字', 'running'],
  ];
  assert.deepEqual(table(columns, rows, { width: Number.POSITIVE_INFINITY, paint: plain }), [
    ' PID  NAME  STATE',
    '   1  init  sleeping',
    '4711  漢字  running',
  ]);
});

test('a table without titles has no line for them', () => {
  assert.deepEqual(table([{ title: '' }], [['a']], { width: 80, paint: plain }), ['a']);
});

test('where it is too wide, columns wrap or are cut as they say, and the others stay', () => {
  const columns = [
    { title: 'ID' },
    { title: 'WHY', overflow: 'wrap' },
    { title: 'PATH', overflow: 'truncate' },
  ] as const;
  const rows = [['keep_this_id', 'the kernel answered EPERM', '/a/very/long/path/to/it']];
  const lines = table(columns, rows, { width: 40, paint: plain });
  assert.deepEqual(lines, [
    'ID            WHY           PATH',
    'keep_this_id  the kernel    /a/very/lon…',
    '              answered',
    '              EPERM',
  ]);
  for (const line of lines) assert.ok(line.length <= 40);
});

test("cells cannot steer the terminal, styles are the column's", () => {
  const columns = [{ title: '', style: (cell: string) => (cell === 'no' ? ('red' as const) : undefined) }];
  assert.deepEqual(table(columns, [['no'], ['\x1b[32myes']], { width: 80, paint: painter(true) }), [
    '\x1b[31mno\x1b[39m',
    'yes',
  ]);
});
