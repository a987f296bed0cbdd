/** Crash dumps: each command has a file in crash/. They read anybody's dump, unprivileged. */
import { type Command, command } from '../command.ts';
import { UsageError } from '../exit.ts';
import { inputFlags, vmcore } from '../kernel.ts';
import { arm } from './crash/arm.ts';
import { bt } from './crash/bt.ts';
import { convert } from './crash/convert.ts';
import { dis } from './crash/dis.ts';
import { disarm } from './crash/disarm.ts';
import { dmesg } from './crash/dmesg.ts';
import { files } from './crash/files.ts';
import { filter } from './crash/filter.ts';
import { foreach } from './crash/foreach.ts';
import { info } from './crash/info.ts';
import { kmem } from './crash/kmem.ts';
import { list } from './crash/list.ts';
import { mod } from './crash/mod.ts';
import { mount } from './crash/mount.ts';
import { p } from './crash/p.ts';
import { ps } from './crash/ps.ts';
import { rd } from './crash/rd.ts';
import { report } from './crash/report.ts';
import { save } from './crash/save.ts';
import { search } from './crash/search.ts';
import { setup } from './crash/setup.ts';
import { status } from './crash/status.ts';
import { struct } from './crash/struct.ts';
import { sym } from './crash/sym.ts';
import { sys } from './crash/sys.ts';
import { task } from './crash/task.ts';
import { test } from './crash/test.ts';
import { vm } from './crash/vm.ts';
import { vtop } from './crash/vtop.ts';
import { why } from './crash/why.ts';

export const crash: Command = command({
  name: 'crash',
  group: 'Crash dumps',
  summary: 'Read, filter and convert dumps of crashed kernels, and understand them',
  description: [
    'With a dump and no command it opens a shell, in which the commands that look into a dump are typed without its name. Tab completes ' +
      'commands, symbols and types; what was typed before is kept in $XDG_STATE_HOME/tideover/crash_history. "COMMAND | PROGRAM" and ' +
      '"COMMAND > FILE" work as in other shells; Ctrl-C ends the command, quit or Ctrl-D the shell.',
    'Where its input is no terminal, commands are read from there, one a line. A command that fails is told of, and the next goes on; the ' +
      'exit code is that of the first that failed. With --json: [{"command", "exit", "result"}].',
  ],
  arguments: [vmcore],
  flags: inputFlags,
  examples: [
    { line: 'tideover crash vmcore', does: 'look around in it' },
    { line: 'echo "bt -a" | tideover crash vmcore', does: 'commands out of a pipe; the dump is opened once' },
  ],
  async run(io, { flags, args: [path] }) {
    const { existsSync } = await import('node:fs');
    const { Session } = await import('../shell/session.ts');
    const input = { path: path as string, more: flags.more, ram: flags.ram };
    if (!existsSync(input.path)) {
      throw new UsageError(`'${input.path}' is neither a command nor a file; try 'tideover crash --help'`);
    }
    const session = await Session.open(input);
    if (!process.stdin.isTTY) {
      const { runScript } = await import('../shell/script.ts');
      try {
        return await runScript(session, process.stdin, io);
      } finally {
        session.close();
      }
    }
    session.close();
    if (io.json) throw new UsageError('--json is for commands out of a pipe; in the shell each command takes it');
    const { runTerminal } = await import('../shell/terminal.ts');
    await runTerminal(input, 'sys', io);
    return { json: null, text: () => [] };
  },
  commands: [
    why,
    report,
    info,
    sys,
    ps,
    bt,
    foreach,
    task,
    files,
    vm,
    mount,
    dmesg,
    mod,
    sym,
    dis,
    struct,
    list,
    p,
    rd,
    search,
    vtop,
    kmem,
    filter,
    convert,
    arm,
    disarm,
    setup,
    status,
    test,
    save,
  ],
});
