/** Tasks, those with the same stack together. */
import { type Html, html } from './html.ts';
import type { FrameFacts, Report, StackGroup, TaskFacts } from './report.ts';
import type { Section } from './section.ts';

/** Tasks of a group that are named one by one. */
const SHOWN_TASKS = 500;
/** Names of commands in the line of a group. */
const SHOWN_NAMES = 5;
/** How a task comes to wait or a kernel to stop, which says nothing of what for or why. */
const COMMON =
  /^(?:(?:__)?(?:schedule|mutex_lock|down_|down$|rwsem_down_|context_switch|preempt_schedule|io_schedule|cond_resched)|(?:__)?crash_kexec|v?panic$|nmi_panic|oops_|die|exc_|asm_exc_|page_fault_oops|kernelmode_fixup_or_oops|bad_area|do_user_addr_fault|no_context)/;

export function stackSection({ stacks }: Report): Section | undefined {
  if (stacks.length === 0) return undefined;
  const tasks = stacks.reduce((sum, group) => sum + group.tasks.length, 0);
  return {
    id: 'tasks',
    title: 'Tasks',
    count: tasks,
    content: html`<p>${tasks} tasks with ${stacks.length} different kernel stacks. Tasks with the same stack stand together.</p>
<form class="tools" id="task-tools" role="search" aria-label="Search tasks">
<label for="task-search">Search</label>
<input type="search" id="task-search" autocomplete="off" spellcheck="false" placeholder="command, PID or function">
<label for="task-state">Show</label>
<select id="task-state"><option value="">all states</option><option value="D">D: waiting, not to be disturbed</option><option value="R">R: running or ready</option><option value="S">S: sleeping</option><option value="I">I: idle kernel threads</option><option value="TtXZP">T, Z: stopped or ended</option></select>
<output id="task-count" for="task-search task-state" aria-live="polite">${stacks.length} stacks</output>
</form>
${stacks.map(groupOf)}`,
  };
}

function groupOf({ tasks, frames, why, crashed }: StackGroup): Html {
  const states = [...new Set(tasks.map(({ state }) => state))].sort();
  const comms = [...Map.groupBy(tasks, ({ comm }) => comm)].map(([comm, of]) =>
    of.length > 1 ? `${comm} ×${of.length}` : comm,
  );
  const more = comms.length > SHOWN_NAMES ? ` and ${comms.length - SHOWN_NAMES} more` : '';
  const open = crashed || states.includes('D');
  return html`<details class="stack${crashed ? ' crashed' : ''}" data-states="${states.join('')}"${open ? html` open` : undefined}>
<summary><span class="badge">${tasks.length}</span>${states.map((state) => html`<span class="state s-${state}">${state}</span>`)}${crashed ? html`<span class="state crash">crashed</span>` : undefined}<span class="where mono">${placeOf(frames)}</span><span class="who">${comms.slice(0, SHOWN_NAMES).join(', ')}${more}</span></summary>
<div class="body">
${tasks.length === 1 ? oneTask(tasks[0]!) : taskTable(tasks)}
${frames.length === 0 ? html`<p class="quiet">No kernel stack: ${why ?? 'it was in user space, or has ended'}.</p>` : html`<ol class="frames mono" start="0">${frames.map((frame, i) => frameOf(frame, frames[i - 1]))}</ol>${why === undefined ? undefined : html`<p class="quiet">The stack goes on, and cannot be followed: ${why}.</p>`}`}
</div>
</details>
`;
}

/** The function that says most of what the task did. */
function placeOf(frames: readonly FrameFacts[]): string {
  const names = frames.map(({ symbol }) => symbol?.replace(/\+0x[0-9a-f]+$/, '') ?? '?');
  return names.find((name) => !COMMON.test(name)) ?? names[0] ?? 'no kernel stack';
}

function oneTask({ pid, comm, cpu, address, running }: TaskFacts): Html {
  return html`<p><strong>${comm}</strong>, PID ${pid}, ${running ? 'running on' : 'last on'} CPU ${cpu}, <span class="mono quiet">task ${address}</span></p>`;
}

function taskTable(tasks: readonly TaskFacts[]): Html {
  const rows = tasks.slice(0, SHOWN_TASKS).map(({ pid, comm, state, cpu, address }) => {
    return html`<tr><td class="n">${pid}</td><td>${comm}</td><td>${state}</td><td class="n">${cpu}</td><td class="mono quiet">${address}</td></tr>`;
  });
  const rest = tasks.length - rows.length;
  return html`<div class="scroll" tabindex="0" role="region" aria-label="Tasks with this stack"><table><thead><tr><th scope="col" class="n">PID</th><th scope="col">Command</th><th scope="col">State</th><th scope="col" class="n">CPU</th><th scope="col">Task</th></tr></thead><tbody>${rows}</tbody></table></div>${rest > 0 ? html`<p class="quiet">and ${rest} more, which <span class="mono">tideover crash ps</span> lists.</p>` : undefined}`;
}

function frameOf({ pc, symbol, module, interrupted, rescued }: FrameFacts, before: FrameFacts | undefined): Html {
  const found = rescued && before?.rescued !== true ? 'from here on found by looking through the stack' : '';
  const notes = [interrupted ? 'interrupted here' : '', found].filter(Boolean);
  return html`<li>${symbol ?? '(no symbol)'}${module === undefined ? undefined : html` <span class="module">${module}</span>`} <span class="pc">${pc}</span>${notes.length === 0 ? undefined : html` <span class="quiet">${notes.join(', ')}</span>`}</li>`;
}
