/** Crash dumps: each command has a file in crash/. They read anybody's dump, unprivileged. */
import { type Command, command } from '../command.ts';
import { bt } from './crash/bt.ts';
import { convert } from './crash/convert.ts';
import { dis } from './crash/dis.ts';
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
import { search } from './crash/search.ts';
import { struct } from './crash/struct.ts';
import { sym } from './crash/sym.ts';
import { sys } from './crash/sys.ts';
import { task } from './crash/task.ts';
import { vm } from './crash/vm.ts';
import { vtop } from './crash/vtop.ts';
import { why } from './crash/why.ts';

export const crash: Command = command({
  name: 'crash',
  group: 'Crash dumps',
  summary: 'Read, filter and convert dumps of crashed kernels, and understand them',
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
  ],
});
