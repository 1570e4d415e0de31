/** `thaw team …`: names, options and help. */
import type { Command } from 'commander';
import { quotaOptions } from '../key/quota.ts';
import type { Commands } from '../program.ts';
import { create } from './create.ts';
import { deleteTeams } from './delete.ts';
import { list } from './list.ts';
import { quota } from './quota.ts';
import { rename } from './rename.ts';

export function addTeam(team: Command, { context }: Commands): void {
  const json = (command: Command) => command.option('--json', 'print JSON');
  json(
    quotaOptions(
      team
        .command('create')
        .description('make a team and print its first key: it is never shown again')
        .argument('<name>'),
    ),
  ).action((name, options) => create(context(options), name, options));
  json(
    team.command('ls').description('list teams, with what they may have at once and what is used of it'),
  ).action((options) => list(context(options)));
  json(
    quotaOptions(
      team.command('quota').description('show or change what a team may have at once').argument('<team>'),
    ),
  ).action((name, options) => quota(context(options), name, options));
  json(
    team.command('rename').description('give a team another name').argument('<team>').argument('<name>'),
  ).action((old, name, options) => rename(context(options), old, name));
  json(team.command('rm').description('delete teams that have no sandbox and no template'))
    .argument('<team...>')
    .option('--force', 'destroy their sandboxes and templates first')
    .action((names, options) => deleteTeams(context(options), names, options));
}
