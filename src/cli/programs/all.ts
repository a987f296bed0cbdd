/** The program with all its commands. */
export { main } from '../app.ts';
export { tree as program } from '../tree.ts';
