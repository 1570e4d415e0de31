/**
 *   main.ts DATA INTO    collects in INTO what a backup holds of the data folder DATA; standard input names the sandboxes
 *                        as a JSON list of ids, standard output says what was collected
 */
import { json } from 'node:stream/consumers';
import { z } from 'zod';
import { stage } from './stage.ts';

const [data, into] = process.argv.slice(2);
if (data === undefined || into === undefined) {
  process.stderr.write('usage: main.ts DATA INTO\n');
  process.exit(2);
}
const ids = z.array(z.string()).parse(await json(process.stdin));
process.stdout.write(`${JSON.stringify(await stage(data, into, new Set(ids)))}\n`);
