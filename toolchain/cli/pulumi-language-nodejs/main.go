// Pulumi's language host for Node.js, as far as Go modules have it: the host of toolchain/language-host-nodejs runs
// programs but is too old to know packages, so this one adds what `pulumi package add` and `pulumi install` ask for, with
// the code generator of the CLI's own version, and hands everything else to that host, in the folder nodejs beside it.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"google.golang.org/grpc"

	"notifying-postgres/toolchain/cli/languagehost"

	"github.com/pulumi/pulumi/pkg/v3/codegen/nodejs"
	"github.com/pulumi/pulumi/pkg/v3/codegen/schema"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource/plugin"
	pulumirpc "github.com/pulumi/pulumi/sdk/v3/proto/go"
)

func main() {
	path, err := languagehost.Beside("nodejs", "pulumi-language-nodejs")
	if err != nil {
		log.Fatal(err)
	}
	old, err := languagehost.Start(path, os.Args[1:]...)
	if err != nil {
		log.Fatal(err)
	}
	languagehost.Serve(func(stream grpc.ServerStream, method string, request languagehost.Message) error {
		switch method {
		case pulumirpc.LanguageRuntime_GeneratePackage_FullMethodName:
			return languagehost.Reply(stream, request, &pulumirpc.GeneratePackageRequest{}, generatePackage)
		case pulumirpc.LanguageRuntime_Link_FullMethodName:
			return languagehost.Reply(stream, request, &pulumirpc.LinkRequest{}, link)
		}
		return languagehost.Forward(stream, method, request, old)
	})
}

// The generator makes "../utilities" of filepath.Rel("types", ""), which was "../." before Go 1.26 and is ".." since: it comes
// out as "./utilities", a folder too low.
var fromTheRoot = regexp.MustCompile(`from "(\./(?:utilities|types/))`)

// generatePackage writes a TypeScript SDK for a schema into a folder.
func generatePackage(_ context.Context, request *pulumirpc.GeneratePackageRequest) (*pulumirpc.GeneratePackageResponse, error) {
	loader, err := schema.NewLoaderClient(request.LoaderTarget)
	if err != nil {
		return nil, err
	}
	defer loader.Close()
	var spec schema.PackageSpec
	if err := json.Unmarshal([]byte(request.Schema), &spec); err != nil {
		return nil, err
	}
	described, diagnostics, err := schema.BindSpec(spec, loader, schema.ValidationOptions{})
	if err != nil {
		return nil, err
	}
	response := &pulumirpc.GeneratePackageResponse{Diagnostics: plugin.HclDiagnosticsToRPCDiagnostics(diagnostics)}
	if diagnostics.HasErrors() {
		return response, nil
	}
	files, err := nodejs.GeneratePackage(
		"pulumi-language-nodejs", described, request.ExtraFiles, request.LocalDependencies, request.Local, loader)
	if err != nil {
		return nil, err
	}
	for name, content := range files {
		path := filepath.Join(request.Directory, name)
		if filepath.Dir(name) != "." {
			content = fromTheRoot.ReplaceAll(content, []byte(`from ".${1}`))
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return nil, err
		}
		if err := os.WriteFile(path, content, 0o644); err != nil { //nolint:gosec // a program's sources
			return nil, err
		}
	}
	return response, nil
}

// link names SDKs in folders as dependencies of a program, in its package.json.
func link(ctx context.Context, request *pulumirpc.LinkRequest) (*pulumirpc.LinkResponse, error) {
	var imports []string
	for _, linked := range request.Packages {
		manifest, err := os.ReadFile(filepath.Join(request.Info.RootDirectory, linked.Path, "package.json"))
		if err != nil {
			return nil, err
		}
		var sdk struct{ Name string }
		if err := json.Unmarshal(manifest, &sdk); err != nil {
			return nil, err
		}
		npm := exec.CommandContext(ctx, "npm", "pkg", "set", fmt.Sprintf("dependencies.%s=file:%s", sdk.Name, linked.Path))
		npm.Dir = request.Info.RootDirectory
		if said, err := npm.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("npm pkg set: %w: %s", err, said)
		}
		imports = append(imports, fmt.Sprintf("import * as %s from %q;", strings.ReplaceAll(linked.Package.Name, "-", "_"), sdk.Name))
	}
	return &pulumirpc.LinkResponse{ImportInstructions: strings.Join(imports, "\n")}, nil
}
