/** How the page looks, on a screen by day and by night and on paper. */
export const style = `
:root {
  color-scheme: light dark;
  --ground: #f6f7f9; --card: #ffffff; --text: #1a202c; --quiet: #5a6577; --line: #dde2ea; --accent: #1c5fb8;
  --red: #b42318; --red-ground: #fdecea; --amber: #8a5a00; --amber-ground: #fff5e0; --code: #f1f4f8; --mark: #ffe27a;
  --top: #1f2937; --top-text: #f8fafc; --top-quiet: #b6c2d4; --stripe: #64748b;
  --k0: #2f6fc4; --k1: #1f9d8b; --k2: #7bb661; --k3: #b79ae0; --k4: #7a4fc0; --k5: #e08a2e; --k6: #c2577f; --k7: #7b8794; --k8: #dfe5ec;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #10141b; --card: #181e28; --text: #e6ebf2; --quiet: #9aa7b9; --line: #2b3442; --accent: #7db4ff;
    --red: #ff8b80; --red-ground: #3a1a1a; --amber: #f2c063; --amber-ground: #33280f; --code: #121822; --mark: #7a5f00;
    --top: #0b0f15; --top-text: #f2f5fa; --top-quiet: #9fb0c8; --stripe: #48566b;
    --k0: #5b96e8; --k1: #35b8a5; --k2: #8fc977; --k3: #c3abec; --k4: #9a76dd; --k5: #ee9f4b; --k6: #d97b9d; --k7: #8895a5; --k8: #2f3948;
  }
}
* { box-sizing: border-box; }
html { scroll-padding-top: 3.5rem; scroll-behavior: smooth; }
@media (prefers-reduced-motion: reduce) { html { scroll-behavior: auto; } }
body { margin: 0; background: var(--ground); color: var(--text); font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
.wide { max-width: 74rem; margin-inline: auto; padding-inline: 1.5rem; }
.mono, .log { font-family: ui-monospace, "SF Mono", "Cascadia Mono", "DejaVu Sans Mono", Menlo, Consolas, monospace; font-size: 0.86em; }
.quiet { color: var(--quiet); }
.alarm { color: var(--red); font-weight: 600; }
.hidden { position: absolute; clip-path: inset(50%); width: 1px; height: 1px; overflow: hidden; white-space: nowrap; }
[hidden] { display: none !important; }
a { color: var(--accent); }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; border-radius: 4px; }
main:focus { outline: none; }
.skip { position: absolute; left: 1rem; top: -4rem; background: var(--card); padding: 0.5rem 1rem; z-index: 3; border-radius: 0 0 6px 6px; }
.skip:focus { top: 0; }

.top { background: var(--top); color: var(--top-text); border-bottom: 5px solid var(--stripe); padding: 2rem 0 1.6rem; }
.top.crashed { border-bottom-color: #dc3a2c; }
.kicker { margin: 0; text-transform: uppercase; letter-spacing: 0.12em; font-size: 0.74rem; font-weight: 600; color: var(--top-quiet); }
h1 { margin: 0.35rem 0 1.2rem; font-size: clamp(1.3rem, 2.6vw, 1.9rem); line-height: 1.25; font-weight: 650; overflow-wrap: anywhere; text-wrap: balance; }
.facts { display: flex; flex-wrap: wrap; gap: 0.7rem 2.2rem; margin: 0; }
.facts dt { font: 0.72rem/1.4 system-ui, sans-serif; color: var(--quiet); }
.top .facts dt { color: var(--top-quiet); }
.facts dd { margin: 0; overflow-wrap: anywhere; }

.sections { position: sticky; top: 0; z-index: 2; background: var(--card); border-bottom: 1px solid var(--line); }
.sections ul { display: flex; gap: 0.2rem; overflow-x: auto; list-style: none; margin-block: 0; }
.sections a { display: block; padding: 0.7rem 0.8rem; color: var(--text); text-decoration: none; white-space: nowrap; font-size: 0.9rem; }
.sections li:first-child a { margin-left: -0.8rem; }
.sections a:hover { color: var(--accent); }
.count { color: var(--quiet); font-weight: 400; font-size: 0.85em; font-variant-numeric: tabular-nums; }

section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 1.2rem 1.5rem 1.5rem; margin: 1.4rem 0; }
h2 { margin: 0 0 0.8rem; font-size: 1.15rem; }
h3 { margin: 0; font-size: 1rem; }
p { margin: 0.4rem 0 0.9rem; }
footer { color: var(--quiet); font-size: 0.85rem; padding-bottom: 2rem; overflow-wrap: anywhere; }

.finding { display: grid; grid-template-columns: 5.5rem 1fr; gap: 0.9rem; padding: 0.9rem 1rem; margin-bottom: 0.7rem; border: 1px solid var(--line); border-left: 4px solid var(--line); border-radius: 6px; overflow-wrap: anywhere; }
.finding h3 { font-weight: 600; }
.finding ul { margin: 0.3rem 0; padding-left: 1.2rem; }
.finding.cause { border-left-color: var(--red); background: var(--red-ground); }
.finding.related { border-left-color: var(--amber); background: var(--amber-ground); }
.weight { margin: 0.15rem 0 0; font-size: 0.74rem; font-weight: 700; text-transform: uppercase; letter-spacing: 0.06em; color: var(--quiet); }
.cause .weight { color: var(--red); }
.related .weight { color: var(--amber); }
.registers { display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: 0.1rem 1.5rem; }
.registers div, .sources div { display: flex; gap: 1rem; }
.registers dt { width: 4rem; color: var(--quiet); }
.registers dd, .sources dd { margin: 0; overflow-wrap: anywhere; }
.sources { margin: 0; }
.sources dt { flex: none; width: 7rem; color: var(--quiet); }
.signature { margin: 1rem 0 0; overflow-wrap: anywhere; }

.tools { display: flex; flex-wrap: wrap; align-items: center; gap: 0.5rem 0.6rem; margin-bottom: 0.8rem; }
.tools label { color: var(--quiet); font-size: 0.88rem; }
.tools output { color: var(--quiet); font-size: 0.88rem; font-variant-numeric: tabular-nums; min-width: 8rem; }
input, select, .button { font: inherit; font-size: 0.92rem; color: var(--text); background: var(--ground); border: 1px solid var(--line); border-radius: 6px; padding: 0.35rem 0.6rem; }
input { width: min(22rem, 100%); }
.button { text-decoration: none; margin-left: auto; color: var(--accent); }

.log { max-height: 34rem; overflow: auto; background: var(--code); border: 1px solid var(--line); border-radius: 6px; padding: 0.5rem 0; line-height: 1.5; }
.chunk { content-visibility: auto; contain-intrinsic-size: auto 4000px; }
.l { padding: 0 0.9rem 0 8.6rem; text-indent: -7.7rem; white-space: pre-wrap; overflow-wrap: anywhere; }
.l:target { background: var(--amber-ground); outline: 1px solid var(--amber); }
.t { display: inline-block; width: 7rem; text-indent: 0; text-align: right; color: var(--quiet); margin-right: 0.3rem; }
.l0 .m, .l1 .m, .l2 .m, .l3 .m { color: var(--red); font-weight: 600; }
.l4 .m { color: var(--amber); }
.l .quiet { font-size: 0; user-select: none; }
mark { background: var(--mark); color: inherit; border-radius: 2px; }

.stack { border: 1px solid var(--line); border-radius: 6px; margin-bottom: 0.45rem; }
.stack.crashed { border-color: var(--red); }
summary { cursor: pointer; border-radius: 6px; }
.stack > summary { display: flex; align-items: center; gap: 0.55rem; padding: 0.5rem 0.8rem; list-style: none; }
.stack > summary::-webkit-details-marker { display: none; }
.stack > summary::before { content: ""; flex: none; width: 0.45rem; height: 0.45rem; border: solid var(--quiet); border-width: 0 2px 2px 0; transform: rotate(-45deg); }
.stack[open] > summary::before { transform: rotate(45deg) translate(-2px, -2px); }
.stack > summary:hover { background: var(--code); }
.badge { flex: none; min-width: 2.3rem; text-align: center; border-radius: 99px; background: var(--code); border: 1px solid var(--line); font-size: 0.82rem; font-variant-numeric: tabular-nums; padding: 0 0.4rem; }
.state { flex: none; font-size: 0.76rem; font-weight: 700; border-radius: 4px; padding: 0.05rem 0.4rem; background: var(--code); color: var(--quiet); }
.s-D { background: var(--amber-ground); color: var(--amber); }
.s-R { color: var(--accent); }
.state.crash { background: var(--red-ground); color: var(--red); }
.where { flex: none; max-width: 45%; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; font-weight: 600; }
.who { flex: 1; min-width: 0; color: var(--quiet); font-size: 0.88rem; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; text-align: right; }
.body { padding: 0.2rem 1rem 0.9rem 2rem; border-top: 1px solid var(--line); }
.frames { margin: 0.3rem 0 0; padding: 0 0 0 2.4rem; }
.frames li { overflow-wrap: anywhere; }
.frames li::marker { color: var(--quiet); content: "#" counter(list-item) "  "; }
.pc { color: var(--quiet); font-size: 0.9em; margin-left: 0.6rem; }
.module { color: var(--amber); }
.module::before { content: "["; } .module::after { content: "]"; }

table { border-collapse: collapse; width: 100%; font-size: 0.92rem; }
caption { text-align: left; font-weight: 600; padding-bottom: 0.4rem; }
th { text-align: left; font-size: 0.78rem; font-weight: 600; color: var(--quiet); }
th, td { padding: 0.28rem 0.9rem 0.28rem 0; border-bottom: 1px solid var(--line); vertical-align: middle; }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.scroll { overflow-x: auto; }
.stack .scroll { max-height: 18rem; overflow-y: auto; margin-bottom: 0.6rem; }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(26rem, 100%), 1fr)); gap: 1.2rem 3rem; align-items: start; margin-top: 1.2rem; }

.bar { display: block; width: 100%; height: 2.5rem; border-radius: 6px; overflow: hidden; }
.bar rect { stroke: var(--card); stroke-width: 1; vector-effect: non-scaling-stroke; }
.small-bar { display: block; width: 100%; min-width: 4rem; height: 0.5rem; border-radius: 4px; }
.small-bar .rest { fill: var(--code); }
.key { width: 0.8rem; height: 0.8rem; margin-right: 0.6rem; vertical-align: -0.08rem; }
.kind-0 { fill: var(--k0); } .kind-1 { fill: var(--k1); } .kind-2 { fill: var(--k2); } .kind-3 { fill: var(--k3); } .kind-4 { fill: var(--k4); }
.kind-5 { fill: var(--k5); } .kind-6 { fill: var(--k6); } .kind-7 { fill: var(--k7); } .kind-8 { fill: var(--k8); }

.picture { background: var(--code); border: 1px solid var(--line); border-radius: 6px; margin-bottom: 0.8rem; }
.waits { display: block; margin: auto; }
.node rect { fill: var(--card); stroke: var(--stripe); stroke-width: 1.5; }
.node.lock rect { fill: var(--code); stroke-dasharray: 5 3; }
.node.deadlock rect { stroke: var(--red); stroke-width: 2.2; }
.node-title { fill: var(--text); font: 600 14px system-ui, sans-serif; }
.node-detail { fill: var(--quiet); font: 11.5px ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; }
.edge { fill: none; stroke: var(--stripe); stroke-width: 1.6; }
.edge.deadlock { stroke: var(--red); stroke-width: 2.4; }
.edge-label { fill: var(--quiet); font: 11px system-ui, sans-serif; paint-order: stroke; stroke: var(--code); stroke-width: 4px; }
.arrow { fill: var(--stripe); }
.arrow.deadlock { fill: var(--red); }

@media (max-width: 40rem) {
  .wide { padding-inline: 0.9rem; }
  section { padding-inline: 0.9rem; }
  .finding { grid-template-columns: 1fr; gap: 0.2rem; }
  .l { padding-left: 0.9rem; text-indent: 0; }
  .t { width: auto; }
  .who { display: none; }
  .where { max-width: none; flex: 1; }
}
@media print {
  :root { --ground: #fff; --card: #fff; --text: #000; --quiet: #444; --line: #bbb; --accent: #000; --red: #a00; --red-ground: #fff; --amber: #640; --amber-ground: #fff; --code: #fff; --top: #fff; --top-text: #000; --top-quiet: #444; }
  body { font-size: 10pt; }
  .wide { max-width: none; padding-inline: 0; }
  .sections, .skip, .tools { display: none; }
  .top { padding: 0 0 1rem; }
  section { border: 0; border-top: 1px solid var(--line); border-radius: 0; padding: 0.6rem 0; margin: 0.8rem 0 0; }
  .log, .scroll, .stack .scroll { max-height: none; overflow: visible; }
  .log { border: 0; font-size: 7.5pt; }
  .chunk { content-visibility: visible; }
  .stack, .finding, tr, .frames li { break-inside: avoid; }
  h2, h3, summary { break-after: avoid; }
  .waits { width: 100%; height: auto; }
  .bar, .small-bar, .key, .node rect { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
`;
