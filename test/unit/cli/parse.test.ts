import assert from 'node:assert/strict';
import test from 'node:test';
import { type Command, command } from '../../../src/cli/command.ts';
import { UsageError } from '../../../src/cli/exit.ts';
import { globalFlags } from '../../../src/cli/globals.ts';
import type { Settings } from '../../../src/cli/io.ts';
import { parse } from '../../../src/cli/parse.ts';
import { tree } from '../../../src/cli/tree.ts';

const run = async () => ({ json: null, text: () => [] });

/** Spelled as CRIU spells it. */
const criu: Command = {
  name: 'prog',
  summary: 'A program',
  commands: [
    command({
      name: 'checkpoint',
      aliases: ['dump'],
      summary: 'Save a process tree',
      flags: {
        tree: { long: 'tree', short: 't', value: 'PID', summary: 'the process' },
        dir: { long: 'images-dir', short: 'D', value: 'DIR', summary: 'where to' },
        leave: { long: 'leave-running', short: 'R', summary: 'let it run on' },
        detach: { long: 'detach', short: 'd', summary: 'end before it' },
        external: { long: 'external', value: 'RES', repeat: true, summary: 'not saved' },
      },
      run,
    }),
    {
      name: 'kexec',
      summary: 'Another kernel',
      commands: [
        command({
          name: 'load',
          summary: 'Load it',
          arguments: [
            { name: 'KERNEL', summary: 'the image' },
            { name: 'INITRD', summary: 'its file systems', optional: true, variadic: true },
          ],
          run,
        }),
      ],
    },
  ],
};

function given(line: string, program = criu) {
  const settings: Settings = { json: false, verbose: 0, quiet: false, color: 'auto' };
  const look = { width: 80, color: () => settings.color === 'always' };
  const request = parse(
    program,
    globalFlags,
    line.split(' ').filter((word) => word !== ''),
    settings,
    look,
  );
  return { settings, request };
}

function ran(line: string) {
  const { settings, request } = given(line);
  assert.equal(request.kind, 'run');
  return {
    settings,
    command: request.command.name,
    flags: request.input.flags as Record<string, unknown>,
    args: request.input.args,
  };
}

function shown(line: string, program?: Command): string {
  const { request } = given(line, program);
  assert.equal(request.kind, 'show');
  return request.text;
}

function refused(line: string, message: string | RegExp, program?: Command) {
  assert.throws(
    () => given(line, program),
    (error) => {
      assert.ok(error instanceof UsageError);
      if (typeof message === 'string') assert.equal(error.message, message);
      else assert.match(error.message, message);
      return true;
    },
  );
}

test('options take their values in every spelling, and stand in any order', () => {
  for (const line of [
    'dump -t 12 -D d -R',
    'checkpoint -t12 -R -Dd',
    'dump --tree=12 --images-dir d --leave-running',
    'dump -RDd -t 12',
  ]) {
    const { command, flags } = ran(line);
    assert.equal(command, 'checkpoint');
    assert.deepEqual({ ...flags }, { tree: '12', dir: 'd', leave: true, detach: false, external: [] }, line);
  }
});

test('every long option is taken back by --no-', () => {
  const { flags, settings } = ran(
    'dump -R -t 1 --external a --no-leave-running --no-tree --no-external --json --no-json',
  );
  assert.deepEqual({ ...flags }, { tree: undefined, dir: undefined, leave: false, detach: false, external: [] });
  assert.equal(settings.json, false);
});

test('a repeated option collects', () => {
  assert.deepEqual(ran('dump --external a --external b').flags.external, ['a', 'b']);
});

test('global options stand before the command and after it', () => {
  assert.deepEqual(ran('--json -v kexec -q load k -v').settings, {
    json: true,
    verbose: 2,
    quiet: true,
    color: 'auto',
  });
  assert.equal(ran('dump --color never').settings.color, 'never');
});

test('verbosity as CRIU spells it', () => {
  for (const [line, level] of [
    ['-v4', 4],
    ['-vvv', 3],
    ['-v0', 0],
    ['-vv -v0 -v', 1],
  ] as const) {
    assert.equal(ran(`dump ${line}`).settings.verbose, level, line);
  }
});

test('arguments', () => {
  assert.deepEqual(ran('kexec load vmlinuz a b').args, ['vmlinuz', ['a', 'b']]);
  assert.deepEqual(ran('kexec load -- -v4').args, ['-v4', []]);
  refused('kexec load', "missing required argument 'KERNEL'; try 'prog kexec load --help'");
  refused('dump extra', "takes no argument, and this was given: extra; try 'prog checkpoint --help'");
});

test('what does not exist is refused with a suggestion', () => {
  refused('chekpoint', "unknown command 'chekpoint'; did you mean 'checkpoint'?");
  refused('dmp', "unknown command 'dmp'; did you mean 'dump'?");
  refused('kexec laod', "unknown command 'laod'; did you mean 'load'?");
  refused('dump --leave-runing', "unknown option '--leave-runing'; did you mean '--leave-running'?");
  refused('dump --jsn', "unknown option '--jsn'; did you mean '--json'?");
  refused('zzzzzz', "unknown command 'zzzzzz'; try 'prog --help'");
  refused('dump --color sometimes', /'sometimes' is invalid.*auto, always, never/);
  refused('dump -t', /option '-t, --tree <PID>' argument missing/);
});

test('a missing command is a wrong usage', () => {
  refused('', /command/);
  refused('kexec', /command is missing/);
  refused('--json', /command/);
});

test('settings that stand before an error are known', () => {
  const settings: Settings = { json: false, verbose: 0, quiet: false, color: 'auto' };
  assert.throws(() => parse(criu, globalFlags, ['--json', '-vv', 'zzz'], settings, { width: 80, color: () => false }));
  assert.deepEqual(settings, { json: true, verbose: 2, quiet: false, color: 'auto' });
});

test('the version', () => {
  assert.match(shown('--version'), /^\d+\.\d+\.\d+\n$/);
  assert.equal(shown('-V'), shown('--version'));
});

test('help tells of commands, options in groups, exit codes and examples, within its width', () => {
  const program = shown('--help', tree);
  for (const part of [
    /^Usage: tideover /,
    /This machine:\n {2}check /,
    /Exit codes:\n {2}0 /,
    /Global options:\n/,
    /Examples:\n/,
  ]) {
    assert.match(program, part);
  }
  const check = shown('check --help', tree);
  for (const part of [/^Usage: tideover check /, /--json /, /--color <WHEN>/, /Examples:/]) assert.match(check, part);
  assert.equal(shown('help check', tree), check);
  assert.match(shown('dump --help'), /-t, --tree <PID> +the process/);
  for (const text of [program, check]) {
    assert.doesNotMatch(text, /--no-/);
    assert.doesNotMatch(text, /\x1b/);
    for (const line of text.split('\n')) assert.ok(line.length <= 80, `${line.length}: ${line}`);
  }
  assert.match(shown('--color always --help', tree), /\x1b\[1mUsage:/);
});
