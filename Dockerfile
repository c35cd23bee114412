# Builds with the dev dependencies, runs without them, as a user without rights.
FROM node:24-bookworm-slim AS build
WORKDIR /app
COPY package.json package-lock.json ./
COPY clients/node/package.json clients/node/
RUN npm ci --ignore-scripts
COPY tsconfig.json tsconfig.build.json ./
COPY src ./src
COPY migrations ./migrations
COPY page ./page
# The web apps' side and its peers are no part of the service.
RUN npm run build && npm prune --omit=dev --ignore-scripts && rm -rf node_modules/msal-logout-client node_modules/@azure

FROM node:24-bookworm-slim
ENV NODE_ENV=production ADMIN_HOST=0.0.0.0 SPOOL_DIR=/spool
WORKDIR /app
RUN install -d -o node -g node -m 700 /spool
COPY --from=build /app/package.json ./
COPY --from=build /app/node_modules ./node_modules
COPY --from=build /app/dist ./dist
COPY --from=build /app/migrations ./migrations
COPY --from=build /app/page ./page
USER node
VOLUME /spool
EXPOSE 3000 3001
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
  CMD ["node", "-e", "fetch('http://127.0.0.1:' + (process.env.PORT || 3000) + '/healthz').then((r) => process.exit(r.ok ? 0 : 1), () => process.exit(1))"]
CMD ["node", "dist/cli.js", "serve"]
