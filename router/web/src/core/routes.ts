/** The pages and their addresses. */

export type Route =
  | { page: 'list' }
  | { page: 'room'; id: string }
  | { page: 'studio'; id?: string }
  | { page: 'cluster' }
  | { page: 'missing' };

const ID = /^[A-Za-z0-9_-]{1,64}$/;

export function parseRoute(path: string): Route {
  const [head, id, ...rest] = path.split('/').filter(Boolean);
  if (rest.length > 0 || (id !== undefined && !ID.test(id))) return { page: 'missing' };
  if (head === undefined) return { page: 'list' };
  if (head === 'a' && id !== undefined) return { page: 'room', id };
  if (head === 'studio') return id === undefined ? { page: 'studio' } : { page: 'studio', id };
  if (head === 'cluster' && id === undefined) return { page: 'cluster' };
  return { page: 'missing' };
}

export function href(route: Route): string {
  switch (route.page) {
    case 'list':
      return '/';
    case 'room':
      return `/a/${route.id}`;
    case 'studio':
      return route.id === undefined ? '/studio' : `/studio/${route.id}`;
    case 'cluster':
      return '/cluster';
    case 'missing':
      return '/missing';
  }
}
