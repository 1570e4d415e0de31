/** The teams of a key: each has one. */
import { ThawError } from '@thaw/api';
import { z } from 'zod';
import { type App, keyOf } from '../../http/app.ts';
import type { Plane } from '../../plane.ts';
import { findTeam } from '../../team/table.ts';

const Team = z.object({
  teamID: z.string(),
  name: z.string(),
  /** The one that came with the request: others are known as hashes only. */
  apiKey: z.string(),
  isDefault: z.boolean(),
});

export function teamRoutes(app: App, plane: Plane): void {
  app.get('/teams', {
    schema: { response: { 200: z.array(Team) } },
    handler: async (request) => {
      const team = await findTeam(plane.db, request.teamId);
      if (!team) throw new ThawError('not_found', 'the team is gone');
      return [{ teamID: team.id, name: team.name, apiKey: keyOf(request.headers) ?? '', isDefault: true }];
    },
  });
}
