/** What the page does when it is used. It is text, because it runs in a browser; without it all is shown, and nothing is searched. */
export const script = `'use strict';
{
  const $ = (id) => document.getElementById(id);
  const plural = (count, of, one, many) => (count === of ? count + ' ' + (of === 1 ? one : many) : count + ' of ' + of + ' ' + many);
  const soon = (run) => {
    let timer;
    return () => {
      clearTimeout(timer);
      timer = setTimeout(run, 60);
    };
  };
  const mark = (element, query) => {
    const text = element.textContent;
    element.textContent = '';
    const lower = text.toLowerCase();
    let from = 0;
    for (let at = query === '' ? -1 : lower.indexOf(query); at >= 0; at = lower.indexOf(query, from)) {
      const hit = document.createElement('mark');
      hit.textContent = text.slice(at, at + query.length);
      element.append(text.slice(from, at), hit);
      from = at + query.length;
    }
    element.append(text.slice(from));
  };

  const lines = $('log-lines');
  if (lines !== null) {
    const all = [...lines.querySelectorAll('.l')];
    const texts = all.map((line) => line.textContent.toLowerCase());
    const levels = all.map((line) => Number(/\\bl(\\d)/.exec(line.className)[1]));
    let marked = [];
    const search = () => {
      const query = $('log-search').value.trim().toLowerCase();
      const level = Number($('log-level').value);
      for (const message of marked) mark(message, '');
      marked = [];
      let shown = 0;
      all.forEach((line, i) => {
        const fits = levels[i] <= level && texts[i].includes(query);
        line.hidden = !fits;
        if (!fits) return;
        shown++;
        if (query === '') return;
        const message = line.lastElementChild;
        mark(message, query);
        marked.push(message);
      });
      for (const chunk of lines.children) chunk.hidden = chunk.querySelector('.l:not([hidden])') === null;
      $('log-count').value = plural(shown, all.length, 'line', 'lines');
    };
    $('log-search').addEventListener('input', soon(search));
    $('log-level').addEventListener('change', search);
    $('log-tools').addEventListener('submit', (event) => event.preventDefault());
    // The end says more than the start.
    lines.scrollTop = lines.scrollHeight;
  }

  const groups = [...document.querySelectorAll('details.stack')];
  if (groups.length > 0) {
    const texts = groups.map((group) => group.textContent.toLowerCase());
    const search = () => {
      const query = $('task-search').value.trim().toLowerCase();
      const states = [...$('task-state').value];
      let shown = 0;
      groups.forEach((group, i) => {
        const fits = texts[i].includes(query) && (states.length === 0 || states.some((state) => group.dataset.states.includes(state)));
        group.hidden = !fits;
        if (fits) shown++;
      });
      $('task-count').value = plural(shown, groups.length, 'stack', 'stacks');
    };
    $('task-search').addEventListener('input', soon(search));
    $('task-state').addEventListener('change', search);
    $('task-tools').addEventListener('submit', (event) => event.preventDefault());
  }

  // Paper cannot be opened.
  let opened = [];
  addEventListener('beforeprint', () => {
    opened = [...document.querySelectorAll('details:not([open])')];
    for (const each of opened) each.open = true;
  });
  addEventListener('afterprint', () => {
    for (const each of opened) each.open = false;
  });
}
`;
