/** How this program is started. */
export function programOf(): readonly [string, ...string[]] {
  return [process.execPath, ...process.execArgv, process.argv[1]!];
}
