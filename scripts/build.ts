/**
 * Builds dist/: the command line with koffi's .node beside it, and with `--library` also the library (JavaScript and
 * declarations) by tsc. The command line is one small file that starts and others in chunks/ that it loads when they are
 * needed (docs/adr/0003). Each costs 0.6 ms, so that commands that are waited for most (src/cli/programs) are one file each,
 * with copies of all they need. And once more it is all in one file, tideover-single.mjs, for guests and initramfs images; what a
 * capture kernel needs of it is in tideover-capture.mjs, and what the kernels of a hibernation need in tideover-hibernate.mjs.
 *
 * Programs run from dist/ and other builds write to it meanwhile. So a file appears whole, under its name, and before those
 * that import it; and chunks that nothing imports any more stay for an hour, or until the package is made (`--library`).
 */
import { execFileSync } from 'node:child_process';
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { basename, resolve } from 'node:path';
import { type BuildOptions, build, type Plugin } from 'esbuild';

const require = createRequire(import.meta.url);
process.chdir(new URL('..', import.meta.url).pathname);
const { version } = JSON.parse(readFileSync('package.json', 'utf8')) as { version: string };

const options = {
  write: false,
  bundle: true,
  platform: 'node',
  format: 'esm',
  // Syntax that an old Node can parse, so that it gets as far as saying that it is too old.
  target: 'node18',
  minify: true,
  keepNames: true,
  define: { TIDEOVER_VERSION: JSON.stringify(version) },
  external: ['koffi', 'iced-x86'],
  logLevel: 'warning',
} as const satisfies BuildOptions;

/**
 * Node's own modules are loaded when something of them is used, not when one file is linked: 15 ms, and see target. Functions are
 * looked up when they are called; classes and constants where the code that imports them begins.
 */
const builtinsAtFirstUse: Plugin = {
  name: 'builtins at first use',
  setup(builder) {
    builder.onResolve({ filter: /^node:/ }, ({ path }) => ({ path, namespace: 'builtin' }));
    builder.onLoad({ filter: /.*/, namespace: 'builtin' }, async ({ path }) => {
      const names = Object.entries((await import(path)) as object).filter(([name]) => name !== 'default');
      const exports = names.map(([name, value]) => {
        const isFunction = typeof value === 'function' && /^[a-z]/.test(name);
        const taken = isFunction
          ? `(...given) => load().${name}(...given)`
          : `/* @__PURE__ */ (() => load().${name})()`;
        return `export const ${name} = ${taken};`;
      });
      // Asking again for one that is loaded takes as long as a system call.
      const load = `let loaded; const load = () => (loaded ??= process.getBuiltinModule('${path}'));`;
      const whole = 'export default new Proxy({}, { get: (_, name) => load()[name] });';
      return { contents: [load, ...exports, whole].join('\n') };
    });
  },
};

/** The object alone: exports of node:process would be filled when it is linked, stdin and stdout opened for that and set not to block. */
const processAsItIs: Plugin = {
  name: 'process as it is',
  setup(builder) {
    builder.onResolve({ filter: /^(node:)?process$/ }, () => ({ path: 'process', namespace: 'global' }));
    builder.onLoad({ filter: /.*/, namespace: 'global' }, () => ({ contents: 'module.exports = process;' }));
  },
};

const programs = await build({
  ...options,
  entryPoints: ['checkpoint', 'dmesg', 'lazypages', 'restore', 'resume', 'run'].map(
    (name) => `src/cli/programs/${name}.ts`,
  ),
  outdir: 'dist',
  entryNames: 'chunks/[name]-[hash]',
  outExtension: { '.js': '.mjs' },
  plugins: [processAsItIs, builtinsAtFirstUse],
});

// A thread would begin with the file that it is started from, which is a program.
const threaded = programs.outputFiles.find(({ text }) => text.includes('node:worker_threads'));
if (threaded !== undefined) throw new Error(`${threaded.path} has threads; it cannot be a program of its own`);

/** Imports of src/cli/programs are of what was built of them. */
const programsAsBuilt: Plugin = {
  name: 'programs as built',
  setup(builder) {
    builder.onResolve({ filter: /^\.\/programs\// }, ({ path }) => {
      const file = programs.outputFiles.find((output) => basename(output.path).startsWith(`${basename(path, '.ts')}-`));
      return file && { path: `./chunks/${basename(file.path)}`, external: true };
    });
  },
};

const built = await Promise.all([
  programs,
  build({
    ...options,
    entryPoints: [{ in: 'src/cli/main.ts', out: 'tideover' }],
    outdir: 'dist',
    outExtension: { '.js': '.mjs' },
    chunkNames: 'chunks/[name]-[hash]',
    splitting: true,
    plugins: [processAsItIs, programsAsBuilt],
  }),
  build({
    ...options,
    entryPoints: ['src/cli/single.ts'],
    outfile: 'dist/tideover-single.mjs',
    plugins: [builtinsAtFirstUse],
  }),
  ...['capture', 'hibernate'].map((name) =>
    build({
      ...options,
      entryPoints: [`src/cli/${name}.ts`],
      outfile: `dist/tideover-${name}.mjs`,
      plugins: [builtinsAtFirstUse],
    }),
  ),
]);
const outputFiles = built.flatMap((result) => result.outputFiles);
mkdirSync('dist/chunks', { recursive: true });
const temporary = mkdtempSync('dist/build-');
try {
  copyFileSync(require.resolve('@koromix/koffi-linux-x64/linux_x64/koffi.node'), `${temporary}/koffi.node`);
  renameSync(`${temporary}/koffi.node`, 'dist/koffi.node');
  const entry = resolve('dist/tideover.mjs');
  const entryLast = outputFiles.toSorted((a, b) => Number(a.path === entry) - Number(b.path === entry));
  for (const { path, contents } of entryLast) {
    writeFileSync(`${temporary}/file`, contents);
    renameSync(`${temporary}/file`, path);
  }
} finally {
  rmSync(temporary, { recursive: true });
}
const HOUR = 3_600_000;
const library = process.argv.includes('--library');
removeOthers(new Set(outputFiles.map(({ path }) => path)), library ? 0 : HOUR);

if (library) {
  // What a source that is gone was compiled to must not be packed.
  for (const { name } of readdirSync('src', { withFileTypes: true }).filter((entry) => entry.isDirectory())) {
    rmSync(`dist/${name}`, { recursive: true, force: true });
  }
  execFileSync('node_modules/.bin/tsc', ['-p', 'tsconfig.build.json'], { stdio: 'inherit' });
}

/**
 * A program that has started may still load chunks of the build that it is from.
 *
 * @param age of what is removed, at least, in ms
 */
function removeOthers(current: ReadonlySet<string>, age: number): void {
  const limit = Date.now() - age;
  const abandoned = readdirSync('dist').filter((name) => name.startsWith('build-'));
  for (const name of [...abandoned, ...readdirSync('dist/chunks').map((chunk) => `chunks/${chunk}`)]) {
    const path = resolve('dist', name);
    const written = statSync(path, { throwIfNoEntry: false })?.mtimeMs;
    if (current.has(path) || written === undefined || written > limit) continue;
    rmSync(path, { recursive: true, force: true });
  }
}
