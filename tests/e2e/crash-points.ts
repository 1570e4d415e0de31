/** Where things die: every labelled step of every verb, and what dies there. */
import type { How } from './faults.ts';

export const VICTIMS = ['agent', 'plane', 'keeper', 'vmm', 'pager', 'blockstore'] as const;
export type Victim = (typeof VICTIMS)[number];

export const VERBS = ['create', 'destroy', 'resume', 'pause', 'snapshot'] as const;
export type Verb = (typeof VERBS)[number];

export interface Point {
  verb: Verb;
  label: string;
  victim: Victim;
}

/** What a start has made when it reaches the step; before these there is neither a keeper nor a VM. */
const WITH_KEEPER = /:(start-vm|init|open-egress|write-machine)$/;
const WITH_VM = /:(init|open-egress|write-machine)$/;
/** A pause that has come this far has ended its VM. */
const AFTER_END = /^pause:(unname|remove)-builds$/;

/** Whether the victim runs when the step is reached. */
function isThere({ verb, label, victim }: Point): boolean {
  if (victim === 'agent' || victim === 'plane') return true;
  switch (verb) {
    case 'create':
    case 'resume':
      return (victim === 'keeper' ? WITH_KEEPER : WITH_VM).test(label);
    case 'pause':
      return !AFTER_END.test(label);
    case 'snapshot':
      return true;
    case 'destroy':
      return label === 'destroy:end';
  }
}

/** Every point of the verb's steps. */
export function pointsOf(verb: Verb, labels: readonly string[]): Point[] {
  return labels.flatMap((label) => VICTIMS.map((victim) => ({ verb, label, victim }))).filter(isThere);
}

export function howOf(victim: Victim): How {
  return victim === 'agent' ? 'kill' : `kill=${victim}`;
}
