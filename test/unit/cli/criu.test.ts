/** CRIU's options, as people and scripts type them. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import test from 'node:test';
import { checkpoint } from '../../../src/cli/commands/checkpoint.ts';
import { restore } from '../../../src/cli/commands/restore.ts';
import { criuGuide } from '../../../src/cli/criu/guide.ts';
import { type CriuOption, criuOptions, isGlobal, refuseUnbuilt } from '../../../src/cli/criu/options.ts';
import { timeoutOf } from '../../../src/cli/criu/predump.ts';
import { UsageError } from '../../../src/cli/exit.ts';
import { globalFlags } from '../../../src/cli/globals.ts';
import { parse } from '../../../src/cli/parse.ts';
import { tree } from '../../../src/cli/tree.ts';

/** What a command gets of a command line. */
function flagsOf(words: readonly string[]): Record<string, unknown> {
  const settings = { json: false, verbose: 0, quiet: false, color: 'auto' as const };
  const request = parse(tree, globalFlags, words, settings, { width: 80, color: () => false });
  assert.ok(request.kind === 'run');
  return { ...request.input.flags, verbosity: settings.verbose };
}

test('docs/process.md is what the options say; else run: node scripts/docs.ts', () => {
  const written = readFileSync(new URL('../../../docs/process.md', import.meta.url), 'utf8');
  assert.equal(written, criuGuide());
});

/** How an option may be typed. */
function formsOf({ long, short, value, optional }: CriuOption): string[][] {
  const bare = value === undefined || optional !== undefined;
  return [
    ...(bare ? [[`--${long}`]] : []),
    ...(value === undefined ? [] : [[`--${long}=12`]]),
    ...(bare ? [] : [[`--${long}`, '12']]),
    ...(short === undefined ? [] : [[`-${short}`, ...(bare ? [] : ['12'])]]),
  ];
}

for (const name of ['dump', 'restore']) {
  test(`every option of CRIU is understood by ${name}`, () => {
    flagsOf([name, ...criuOptions.flatMap((option) => formsOf(option).flat())]);
    const switches = criuOptions.filter(({ value, long }) => value === undefined && !isGlobal(long));
    const taken = flagsOf([name, ...switches.flatMap(({ long }) => [`--${long}`, `--no-${long}`])]);
    for (const { long } of switches) assert.ok(taken[long] === undefined || taken[long] === false, long);
  });
}

test('every option of CRIU is what the table says', () => {
  const flags = flagsOf(['dump', ...criuOptions.flatMap((option) => formsOf(option)[0]!)]);
  for (const { long, value, optional, state, harmless } of criuOptions) {
    const given = { [long]: flags[long] };
    const changesNothing = value !== undefined && optional !== undefined && harmless?.includes(optional);
    if (state !== 'unbuilt' || changesNothing) refuseUnbuilt(given);
    else assert.throws(() => refuseUnbuilt(given), { code: 'unsupported', what: `--${long}` });
    for (const each of harmless ?? []) refuseUnbuilt({ [long]: [each] });
    const declared = [checkpoint, restore].some((command) =>
      Object.values(command.flags ?? {}).some((flag) => flag.long === long && !flag.hidden),
    );
    if (!isGlobal(long)) assert.equal(declared, state === 'same' || state === 'differs', long);
  }
});

test('no option is in the table twice', () => {
  const names = criuOptions.flatMap(({ long, short }) => (short === undefined ? [long] : [long, `-${short}`]));
  assert.deepEqual(
    names.filter((name, i) => names.indexOf(name) !== i),
    [],
  );
});

test("what CRIU's regression programs ask for", () => {
  const asked = [
    '--cgroup-root name=zdtmtst:/prefix',
    '--external mnt[/zdtm/static/mnt_ext_manual.test]:ZDTM',
    '--external mnt[]:s',
    '--ghost-fiemap --ghost-limit 8M',
    '--no-ghost-fiemap --ghost-limit 1G',
    '--manage-cgroups --cgroup-yard ../../external_yard',
    '--manage-cgroups=full',
    '--manage-cgroups=ignore',
    '--network-lock nftables --tcp-established',
    '--tcp-close --skip-in-flight --allow-uprobes',
    '--enable-external-masters --ext-mount-map auto',
    '--enable-fs nfsd --ext-unix-sk --file-locks',
    '--force-irmap --irmap-scan-path /zdtm/static --link-remap',
    '--external veth[zdtmvthc0]:zdtmvthh0@zdtmbr0 --external netdev[zdtmvthc0]:zdtmvthc1',
    '--join-ns net:/var/run/netns/criu-net-lock-test',
    '--lsm-mount-context=system_u:object_r:container_file_t:s0:c204,c495',
    '--no-mntns-compat-mode --mntns-compat-mode',
    '-v4 -o dump.log --no-default-config -D image --timeout 10',
    '--verbosity=4 --display-stats --log-pid',
  ];
  for (const line of asked) {
    for (const name of ['dump', 'restore']) flagsOf([name, ...line.split(' ')]);
  }
  assert.equal(flagsOf(['dump', '--verbosity=4']).verbosity, 4);
  assert.deepEqual(flagsOf(['restore', '--manage-cgroups', '-d']).manageCgroups, ['soft']);
});

test('a time that is none is refused', () => {
  assert.equal(timeoutOf({ timeout: undefined }), 10_000);
  assert.equal(timeoutOf({ timeout: '0.5' }), 500);
  for (const timeout of ['10s', '', '0', '-1', 'Infinity']) assert.throws(() => timeoutOf({ timeout }), UsageError);
});
