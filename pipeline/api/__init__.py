"""The functions behind the commands, one a file; `import ssna` offers them all."""
