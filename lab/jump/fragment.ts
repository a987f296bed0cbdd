/** A Kconfig fragment against the .config that came of it: Kconfig drops what it cannot satisfy without a word. */

/** Values by option: `y`, `n` for "is not set", a number or a quoted text. */
export function parseConfig(text: string): Map<string, string> {
  const values = new Map<string, string>();
  for (const line of text.split('\n')) {
    const set = /^(CONFIG_\w+)=(.*)$/.exec(line);
    const unset = /^# (CONFIG_\w+) is not set$/.exec(line);
    if (set !== null) values.set(set[1]!, set[2]!);
    if (unset !== null) values.set(unset[1]!, 'n');
  }
  return values;
}

/** One line for each option of `fragment` that `config` lacks or has with another value. */
export function differences(fragment: string, config: string): string[] {
  const final = parseConfig(config);
  return [...parseConfig(fragment)].flatMap(([option, wanted]) => {
    // An option that is off and whose dependencies are off too does not appear in a .config.
    const found = final.get(option) ?? (wanted === 'n' ? 'n' : 'absent');
    return found === wanted ? [] : [`${option}: wanted ${wanted}, is ${found}`];
  });
}
