// Pulumi's language host for Node.js, as far as Go modules have it: the host of toolchain/language-host-nodejs runs
// programs but is too old to know packages, so this one adds what `pulumi package add` and `pulumi install` ask for, with
// the code generator of the CLI's own version, and hands everything else to that host, in the folder nodejs beside it.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	"github.com/pulumi/pulumi/pkg/v3/codegen/nodejs"
	"github.com/pulumi/pulumi/pkg/v3/codegen/schema"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource/plugin"
	"github.com/pulumi/pulumi/sdk/v3/go/common/util/rpcutil"
	pulumirpc "github.com/pulumi/pulumi/sdk/v3/proto/go"
)

func main() {
	if err := serve(); err != nil {
		fmt.Fprintln(os.Stderr, "pulumi-language-nodejs:", err)
		os.Exit(1)
	}
}

// serve starts the host that runs programs, and answers the engine until the engine ends this process.
func serve() error {
	runtime.LockOSThread() // the host ends with the thread that started it
	self, err := os.Executable()
	if err != nil {
		return err
	}
	runner := exec.Command(filepath.Join(filepath.Dir(self), "nodejs", "pulumi-language-nodejs"), os.Args[1:]...)
	runner.Stderr = os.Stderr
	runner.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stdout, err := runner.StdoutPipe()
	if err != nil {
		return err
	}
	if err := runner.Start(); err != nil {
		return err
	}
	var port int
	if _, err := fmt.Fscanln(stdout, &port); err != nil {
		return fmt.Errorf("%s tells no port: %w", runner.Path, err)
	}
	go func() { _, _ = io.Copy(os.Stdout, stdout) }()

	connection, err := grpc.NewClient(fmt.Sprintf("127.0.0.1:%d", port),
		grpc.WithTransportCredentials(insecure.NewCredentials()), rpcutil.GrpcChannelOptions(),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(unread{})))
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := grpc.NewServer(grpc.ForceServerCodec(unread{}), grpc.MaxRecvMsgSize(1<<30),
		grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error { return answer(stream, connection) }))
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	return server.Serve(listener)
}

// A message as it came over the wire.
type message []byte

// unread is the codec that leaves messages as they are.
type unread struct{}

func (unread) Name() string                       { return "proto" }
func (unread) Marshal(v any) ([]byte, error)      { return *v.(*message), nil }
func (unread) Unmarshal(data []byte, v any) error { *v.(*message) = bytes.Clone(data); return nil }

// answer answers one call: each has one request, and one response or several.
func answer(stream grpc.ServerStream, runner *grpc.ClientConn) error {
	method, _ := grpc.MethodFromServerStream(stream)
	var request message
	if err := stream.RecvMsg(&request); err != nil {
		return err
	}
	switch method {
	case pulumirpc.LanguageRuntime_GeneratePackage_FullMethodName:
		return reply(stream, request, &pulumirpc.GeneratePackageRequest{}, generatePackage)
	case pulumirpc.LanguageRuntime_Link_FullMethodName:
		return reply(stream, request, &pulumirpc.LinkRequest{}, link)
	}
	forward, err := runner.NewStream(stream.Context(), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
	if err != nil {
		return err
	}
	if err := errors.Join(forward.SendMsg(&request), forward.CloseSend()); err != nil {
		return err
	}
	for {
		var response message
		if err := forward.RecvMsg(&response); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := stream.SendMsg(&response); err != nil {
			return err
		}
	}
}

// reply answers a call with what a function makes of its request.
func reply[Request, Response proto.Message](
	stream grpc.ServerStream, wire message, request Request, function func(context.Context, Request) (Response, error),
) error {
	if err := proto.Unmarshal(wire, request); err != nil {
		return err
	}
	response, err := function(stream.Context(), request)
	if err != nil {
		return err
	}
	marshalled, err := proto.Marshal(response)
	if err != nil {
		return err
	}
	return stream.SendMsg((*message)(&marshalled))
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
