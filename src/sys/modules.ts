/** Which modules a kernel must load, and in which order, by the files that depmod(8) writes. */
import { UnsupportedError } from '../errors.ts';

/** Path of a module, relative to its kernel's folder, to the paths of those it needs. */
export type ModuleDependencies = ReadonlyMap<string, readonly string[]>;

/** Reads modules.dep(5). */
export function parseModulesDep(text: string): ModuleDependencies {
  return new Map(
    text
      .split('\n')
      .filter((line) => line.includes(':'))
      .map((line) => {
        const [path, needs] = line.split(':', 2) as [string, string];
        return [path, needs.split(' ').filter((each) => each !== '')];
      }),
  );
}

/** Reads modules.builtin: names of modules that are part of the kernel. */
export function parseModulesBuiltin(text: string): ReadonlySet<string> {
  return new Set(
    text
      .split('\n')
      .filter((line) => line !== '')
      .map(moduleName),
  );
}

/** `kernel/drivers/net/virtio-net.ko.xz` is `virtio_net`, as in /proc/modules. */
export function moduleName(path: string): string {
  return path
    .replace(/^.*\//, '')
    .replace(/\.ko(\.(xz|zst))?$/, '')
    .replaceAll('-', '_');
}

/**
 * Paths of the modules with these names and of all they need, each after those that it needs. Built-in modules need
 * no loading and are left out.
 *
 * @throws UnsupportedError that names a module which the kernel has neither as a file nor built in
 */
export function loadOrder(
  names: readonly string[],
  dependencies: ModuleDependencies,
  builtin: ReadonlySet<string>,
): string[] {
  const pathOf = new Map([...dependencies.keys()].map((path) => [moduleName(path), path]));
  const order = new Set<string>();
  const pending = new Set<string>();
  const add = (path: string) => {
    // A circle cannot be loaded by anyone; depmod refuses to write one.
    if (order.has(path) || pending.has(path)) return;
    pending.add(path);
    for (const needed of dependencies.get(path) ?? []) add(needed);
    order.add(path);
  };
  for (const given of names) {
    const name = moduleName(given);
    const path = pathOf.get(name);
    if (path !== undefined) add(path);
    else if (!builtin.has(name)) {
      throw new UnsupportedError({
        what: `kernel module ${name}`,
        why: 'this kernel has it neither as a module nor built in',
        remedy: 'choose another kernel or do without it',
      });
    }
  }
  return [...order];
}
