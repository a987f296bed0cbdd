/** A service of systemd that is kept: its drop-in, its main process, and a start that goes on. */
import assert from 'node:assert/strict';
import type { Vm } from '../../lab/vm.ts';
import { SLOW } from './keeping.ts';

const UNIT = `[Unit]
Description=Counts

[Service]
Type=notify
NotifyAccess=all
User=nobody
NoNewPrivileges=yes
PrivateTmp=yes
CapabilityBoundingSet=CAP_CHOWN
ExecStart=/bin/sh -c "trap 'echo stopped; exit 0' TERM; until [ -e /run/counts-may ]; do sleep 0.1; done; systemd-notify --ready; i=0; while :; do i=$$((i+1)); echo $$i; sleep 0.1; done"
`;
const LOG = '/var/log/tideover/counts.log';

/** Until a number is in the log. */
const until = (number: number) => `until grep -qx ${number} ${LOG}; do sleep 0.1; done`;

/** To be done in a guest with systemd. */
export async function keepsService(vm: Vm): Promise<void> {
  const mainPid = async () => Number(await vm.check('systemctl show -p MainPID --value counts'));
  const numbers = async () => (await vm.check(`grep -x '[0-9]*' ${LOG}`)).trim().split('\n').map(Number);
  await vm.check('cat >/etc/systemd/system/counts.service && systemctl daemon-reload', { input: UNIT });
  assert.match(await vm.check('tideover keep counts 2>&1'), /do not apply while it is kept: PrivateTmp\n/);

  // It counts as started when it says so itself.
  await vm.check(
    'systemctl start --no-block counts; until [ -e /run/tideover/workloads/counts/pid ]; do sleep 0.1; done',
  );
  assert.equal(await vm.check('systemctl show -p ActiveState --value counts'), 'activating\n');
  await vm.check(`touch /run/counts-may && systemctl start counts && ${until(3)}`);
  const first = await mainPid();
  assert.equal(Number(await vm.check('cat /run/tideover/workloads/counts/pid')), first);
  assert.match(
    await vm.check('systemctl status counts'),
    new RegExp(`Active: active \\(running\\)[^]*Main PID: ${first} `),
  );
  assert.match(await vm.check(`cat /proc/${first}/cgroup`), /^0::\/system.slice\/counts.service$/m);
  const child = '$(pgrep -P $(systemctl show -p MainPID --value counts))';
  const status = await vm.check(`cat /proc/${child}/status`);
  assert.match(status, /^NSpid:\t\d+\t2$/m);
  assert.match(status, /^Uid:\t65534\t65534\t65534\t65534$/m);
  assert.match(status, /^NoNewPrivs:\t1$/m);
  assert.match(status, /^CapBnd:\t0000000000000001$/m);

  await vm.check(`tideover checkpoint -t ${first} -D pkram:workload/counts`, SLOW);
  await vm.check('while systemctl -q is-active counts; do sleep 0.1; done; systemctl reset-failed counts');
  const saved = (await numbers()).length;
  await vm.check('systemctl start counts', SLOW);
  const said = await vm.check('journalctl -q -b -u counts');
  assert.match(said, /goes on from pkram:workload\/counts, as process \d+/);
  await vm.check(until(saved + 3));
  const all = await numbers();
  assert.deepEqual(
    all,
    all.map((_, i) => i + 1),
  );
  assert.notEqual(await mainPid(), first);
  assert.match(await vm.check(`cat /proc/${child}/status`), /^NSpid:\t\d+\t2$/m);
  assert.match(await vm.check('systemctl status counts'), /Active: active \(running\)/);
  assert.doesNotMatch(await vm.check('tideover pkram ls'), /counts/);

  if (process.env.TIDEOVER_FULL !== undefined) await goesOnByAbort(vm, { mainPid, numbers });

  // The signal goes through the init to the command.
  await vm.check('systemctl stop counts');
  assert.match(await vm.check(`tail -n 1 ${LOG}; systemctl show -p Result --value counts`), /^stopped\nsuccess\n$/);
  await vm.check('tideover keep --remove counts && systemctl start counts');
  assert.match(await vm.check(`cat /proc/${await mainPid()}/comm`), /^sh$/m);
  assert.doesNotMatch(await vm.check('systemctl cat counts'), /tideover/);
  await vm.check('systemctl stop counts');
}

/** An update that was killed when it had ended the service: systemd starts it, and it goes on. */
async function goesOnByAbort(
  vm: Vm,
  { mainPid, numbers }: { mainPid(): Promise<number>; numbers(): Promise<number[]> },
): Promise<void> {
  const second = await mainPid();
  await vm.check(`tideover checkpoint -t ${second} -D pkram:workload/counts`, SLOW);
  await vm.check('while systemctl -q is-active counts; do sleep 0.1; done');
  const bootId = (await vm.check('cat /proc/sys/kernel/random/boot_id')).trim();
  const trees = [{ name: 'counts', node: 'workload/counts', pid: second, starttime: 1 }];
  const record = JSON.stringify({ state: 'frozen', bootId, from: 'this', to: 'another', trees, steps: [] });
  await vm.check('cat >/var/lib/tideover/update.json', { input: record });
  assert.match(await vm.check('tideover update abort', SLOW), /^restored here: counts$/m);
  const stopped = (await numbers()).length;
  await vm.check(until(stopped + 3));
  const since = await numbers();
  assert.deepEqual(
    since,
    since.map((_, i) => i + 1),
  );
  assert.match(await vm.check('systemctl status counts'), /Active: active \(running\)/);
  assert.equal(await vm.check('tideover pkram ls 2>&1 | grep -c counts || true'), '0\n');
}
