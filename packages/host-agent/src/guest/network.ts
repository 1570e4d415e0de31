/** Guests as they are reached over the network of this host. */
import { type Guests, init, prepare, thaw } from './control.ts';
import { Guest } from './guest.ts';
import { rehearse } from './rehearse.ts';

export const networkGuests: Guests = {
  open: (host, token) => new Guest(host, token),
  init,
  prepare,
  thaw,
  rehearse,
};
