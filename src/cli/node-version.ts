/**
 * Stops with one line on a Node that is too old. Imported before everything else: what follows may use features that
 * such a Node lacks.
 */

/** `engines` of package.json. */
export const ENGINES = '^24.11.0 || >=26';

/** Whether `version` ("24.11.0") satisfies ENGINES. */
export function isSupported(version: string): boolean {
  const [major = 0, minor = 0] = version.split('.').map(Number);
  return major >= 26 || (major === 24 && minor >= 11);
}

if (!isSupported(process.versions.node)) {
  console.error(
    `tideover: needs Node ${ENGINES}, but this is Node ${process.version} (${process.execPath}); ` +
      'run the tideover command itself, which brings its own Node, or install a newer one',
  );
  process.exit(2);
}
