/** V8 compiles what runs often, but for the time in which it is not to. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { test } from 'node:test';

const compiling = new URL('../../../src/process/compiling.ts', import.meta.url).pathname;

/** Calls functions until V8 would have them compiled, twice. Its own messages go to standard output too. */
const script = `
  import { writeSync } from 'node:fs';
  import { CompilerPause } from '${compiling}';
  const hot = (name) => {
    const function_ = new Function('n', 'let sum = 0; for (let i = 0; i < 10; i++) sum += i * n; return sum // ' + name);
    for (let i = 0; i < 20000; i++) function_(i);
  };
  {
    using pause = new CompilerPause();
    writeSync(1, 'paused\\n');
    hot('first');
    writeSync(1, 'over\\n');
  }
  hot('second');
`;

test('nothing is compiled during a pause, and all that is worth it afterwards', () => {
  const node = ['--trace-opt', '--input-type=module-typescript', '-e', script];
  const text = execFileSync(process.execPath, node, { encoding: 'utf8' });
  const [paused, over] = [text.indexOf('paused\n'), text.indexOf('over\n')];
  assert.ok(paused >= 0 && over > paused, text);
  assert.doesNotMatch(text.slice(paused, over), /compiling method/);
  assert.match(text.slice(over), /compiling method/);
});
