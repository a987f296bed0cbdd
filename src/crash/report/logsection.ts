/** The kernel's log, with a search. */
import { html } from './html.ts';
import type { LogLine, Report } from './report.ts';
import type { Section } from './section.ts';

/** Lines that the browser lays out together, so that a long log shows at once. */
const CHUNK = 200;
const levels = ['emergency', 'alert', 'critical', 'error', 'warning', 'notice', 'info', 'debug'] as const;
/** What is looked for first in the log of a kernel that crashed. */
const BEGIN =
  /Kernel panic - not syncing|^BUG: |^Oops|general protection fault|cut here|blocked for more than|soft lockup|detected stall/;

export function logSection({ log }: Report): Section | undefined {
  if (log.length === 0) return undefined;
  const first = log.findIndex(({ text }) => BEGIN.test(text));
  const chunks = Array.from({ length: Math.ceil(log.length / CHUNK) }, (_, i) => i * CHUNK);
  return {
    id: 'log',
    title: 'Log',
    count: log.length,
    content: html`<form class="tools" id="log-tools" role="search" aria-label="Search the log">
<label for="log-search">Search</label>
<input type="search" id="log-search" autocomplete="off" spellcheck="false" placeholder="text of a message">
<label for="log-level">Show</label>
<select id="log-level"><option value="7">all levels</option><option value="4">warnings and worse</option><option value="3">errors and worse</option></select>
<output id="log-count" for="log-search log-level" aria-live="polite">${log.length} lines</output>
${first < 0 ? undefined : html`<a class="button" href="#log-${first}">First sign of trouble</a>`}
</form>
<div class="log" id="log-lines" role="region" aria-label="Lines of the log" tabindex="0">${chunks.map((from) => html`<div class="chunk">${log.slice(from, from + CHUNK).map((line, i) => lineOf(line, from + i))}</div>`)}</div>`,
  };
}

function lineOf({ time, level, text }: LogLine, index: number) {
  const name = level <= 4 ? html`<span class="quiet">${levels[level]}: </span>` : undefined;
  return html`<div class="l l${level}" id="log-${index}"><span class="t">${time}</span> ${name}<span class="m">${text}</span></div>`;
}
