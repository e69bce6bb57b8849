// A key typed into the page would go nowhere: the cookies are HttpOnly, and only the login operation sets them.
const withoutKeys = () => ({
  wrapComponents: { authorizeBtn: () => () => null, authorizeOperationBtn: () => () => null },
});

SwaggerUIBundle({
  dom_id: '#reference',
  url: '/openapi.json',
  plugins: [withoutKeys],
  deepLinking: true,
  showExtensions: true, // x-roles: who may call
  tryItOutEnabled: true,
  withCredentials: true,
  persistAuthorization: false,
  validatorUrl: null,
});
