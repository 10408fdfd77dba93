// Starts Swagger UI on our own OpenAPI description; a file of its own, because the content policy allows no inline script.
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#docs",
  deepLinking: true,
  validatorUrl: null, // never tell anybody else which APIs are looked at
});
