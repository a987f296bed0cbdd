/**
 * Arming at each start: a service of systemd, a rule of udev that arms again when processors or memory come and go, for the
 * headers of the dump list them (docs/adr/0006), and a hook that does so when the running kernel's package is replaced.
 */
import { existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { attemptSystemctl, installFiles, runsSystemd, type SystemFile } from '../sys/systemd.ts';
import { SETTINGS_FILE } from './settings.ts';

const UNIT = 'tideover-crash.service';
const AGAIN = `systemctl --no-block try-reload-or-restart ${UNIT}`;

/** Paths and contents. @param program of tideover, as systemd starts it */
function setupFiles(program: string): ReadonlyMap<string, SystemFile> {
  const unit = `[Unit]
Description=Capture kernel that saves a dump when this one dies
Documentation=man:kdump.conf(5)
ConditionKernelCommandLine=crashkernel
# Where trees of an update still wait, the capture kernel is the one that goes back to the old kernel (tideover update).
ConditionPathExists=!/run/tideover/guard
Wants=network-online.target
After=local-fs.target network-online.target tideover-resume.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=${program} crash arm
ExecReload=${program} crash arm
ExecStop=${program} crash disarm

[Install]
WantedBy=multi-user.target
`;
  const rule = `# Processors and memory that come and go are not in the headers of the capture kernel that is loaded.
SUBSYSTEM=="memory|cpu", ACTION=="add|remove|online|offline", RUN+="/usr/bin/${AGAIN}"
`;
  const hook = `#!/bin/sh
# The running kernel's file or modules were replaced: the capture kernel is made of them.
[ "$1" = "$(uname -r)" ] && [ -d /run/systemd/system ] && ${AGAIN}
exit 0
`;
  const settings = `# Where dumps go, in the order in which it is tried: a directory, nfs:HOST:/DIR, ssh:USER@HOST:DIR, http(s)://HOST/PATH,
# a block device. kdump.conf's nfs, ssh and raw are understood too.
target /var/crash

# What is left out of a dump, as makedumpfile's -d, and how its pages are compressed: zstd, lzo, zlib, snappy.
level 31
compress zstd

# What follows: reboot, poweroff, halt, shell.
final_action reboot
failure_action reboot

#sshkey /root/.ssh/kdump_id_rsa
#extra_modules
#append
`;
  return new Map([
    [`/etc/systemd/system/${UNIT}`, { text: unit, mode: 0o644 }],
    ['/etc/udev/rules.d/98-tideover-crash.rules', { text: rule, mode: 0o644 }],
    ['/etc/kernel/postinst.d/zz-tideover-crash', { text: hook, mode: 0o755 }],
    [SETTINGS_FILE, { text: settings, mode: 0o600 }],
  ]);
}

/**
 * Writes the files and enables the service, from the next start on. Settings that are there stay.
 *
 * @returns paths that were written, or removed with `remove`
 */
export function setUp(program: string, { remove, root = '/' }: { remove: boolean; root?: string }): string[] {
  // What systemd does not take is no failure: the files are there.
  const systemctl = (...args: string[]) => {
    if (runsSystemd() && root === '/') attemptSystemctl(...args);
  };
  const isThere = (path: string) => existsSync(join(root, path));
  const changed = [...setupFiles(program)].filter(([path]) =>
    remove ? path !== SETTINGS_FILE && isThere(path) : path !== SETTINGS_FILE || !isThere(path),
  );
  if (remove) {
    systemctl('disable', UNIT);
    for (const [path] of changed) rmSync(join(root, path));
  } else installFiles(changed, root);
  systemctl('daemon-reload');
  if (!remove) systemctl('enable', UNIT);
  return changed.map(([path]) => path);
}
