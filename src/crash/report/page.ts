/**
 * A report as one HTML page that needs nothing else: no network, no file beside it, no rights. Its policy lets only its own style and
 * script run, by their hashes, so that text out of a dump could do nothing even if it became markup.
 */
import { Html, html } from './html.ts';
import { logSection } from './logsection.ts';
import type { Report, SystemFacts } from './report.ts';
import { script } from './script.ts';
import { byteText } from './section.ts';
import { memorySection, missingSection, moduleSection, sourceSection, waitSection } from './sections.ts';
import { stackSection } from './stacksection.ts';
import { style } from './style.ts';
import { verdictSection } from './verdictsection.ts';

/** @param made by what, such as `tideover 1.0` */
export async function reportPage(report: Report, made: string): Promise<string> {
  const sections = [
    verdictSection(report),
    waitSection(report),
    logSection(report),
    stackSection(report),
    memorySection(report),
    moduleSection(report),
    missingSection(report),
    sourceSection(report),
  ].filter((section) => section !== undefined);
  const { system, panic, missing } = report;
  const silence = missing.length > 0 ? 'What happened is not known' : 'No panic: the kernel was running';
  const headline = report.verdict?.headline ?? panic ?? silence;
  const title = `${headline} – ${system.nodename ?? 'unknown host'}, ${system.release ?? 'unknown kernel'}`;
  const policy = `default-src 'none'; style-src '${await hashOf(style)}'; script-src '${await hashOf(script)}'; base-uri 'none'; form-action 'none'`;
  return html`<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${policy}">
<meta name="referrer" content="no-referrer">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="generator" content="${made}">
<title>${title}</title>
<style>${new Html(style)}</style>
</head>
<body>
<a class="skip" href="#content">Skip to the content</a>
<header class="top${panic === undefined ? '' : ' crashed'}">
<div class="wide">
<p class="kicker">Kernel crash report</p>
<h1>${headline}</h1>
${facts(system)}
</div>
</header>
<nav class="sections" aria-label="Sections"><ul class="wide">${sections.map(({ id, title, count }) => html`<li><a href="#${id}">${title}${count === undefined ? undefined : html` <span class="count">${count}</span>`}</a></li>`)}</ul></nav>
<main id="content" class="wide" tabindex="-1">
${sections.map(({ id, title, count, content }) => html`<section id="${id}" aria-labelledby="${id}-title"><h2 id="${id}-title">${title}${count === undefined ? undefined : html` <span class="count">${count}</span>`}</h2>${content}</section>\n`)}
</main>
<footer class="wide"><p>Made by ${made} out of <span class="mono">${report.dump}</span> alone. This page loads nothing and sends nothing.</p></footer>
<script>${new Html(script)}</script>
</body>
</html>
`.text;
}

function facts(system: SystemFacts): Html {
  const { release, version, nodename, time, uptime, cpus, load, tasks, memory, taints } = system;
  const rows: readonly (readonly [string, string | undefined])[] = [
    ['Host', nodename],
    ['Kernel', release],
    [
      'Stopped',
      time === undefined ? undefined : `${new Date(time * 1000).toISOString().slice(0, 19).replace('T', ' ')} UTC`,
    ],
    ['Up for', uptime === undefined ? undefined : duration(uptime)],
    ['CPUs', cpus === undefined ? undefined : `${cpus}`],
    ['Load', load?.map((each) => each.toFixed(2)).join(', ')],
    ['Tasks', tasks === undefined ? undefined : `${tasks}`],
    ['Memory in the dump', byteText(memory)],
    ['Taint', taints === '' ? 'none' : taints],
    ['Build', version],
  ];
  const known = rows.filter(([, value]) => value !== undefined);
  return html`<dl class="facts">${known.map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>`;
}

/** `3 days 4 h 5 min`, the two or three largest parts. */
function duration(seconds: number): string {
  const parts = [
    [Math.floor(seconds / 86400), seconds >= 172800 ? 'days' : 'day'],
    [Math.floor(seconds / 3600) % 24, 'h'],
    [Math.floor(seconds / 60) % 60, 'min'],
    [Math.floor(seconds) % 60, 's'],
  ] as const;
  const first = parts.findIndex(([count]) => count > 0);
  if (first < 0) return '0 s';
  return parts
    .slice(first, first + 3)
    .map(([count, unit]) => `${count} ${unit}`)
    .join(' ');
}

/** As a Content-Security-Policy names what may be inline. */
async function hashOf(text: string): Promise<string> {
  const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', new TextEncoder().encode(text)));
  return `sha256-${btoa(String.fromCharCode(...digest))}`;
}
