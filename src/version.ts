import { readFileSync } from 'node:fs';

/** Put in by the build; undefined when the sources run as they are. */
declare const TIDEOVER_VERSION: string | undefined;

/** The version of this package, as in package.json. */
export function version(): string {
  if (typeof TIDEOVER_VERSION === 'string') return TIDEOVER_VERSION;
  const text = readFileSync(new URL('../package.json', import.meta.url), 'utf8');
  return (JSON.parse(text) as { version: string }).version;
}
